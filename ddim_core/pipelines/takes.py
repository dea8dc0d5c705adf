"""What a pipeline's call takes, read off its signature: which family it is of, which guidance."""

from __future__ import annotations

import ast
import inspect
import operator
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ddim_core.common.digest import PARSING

NETWORKS = ("unet", "transformer", "transformer_2", "unconditional_transformer")
Modality = Literal["unconditional", "class-to-image", "text-to-image"]
Guidance = Literal["real", "embedded", "none"]

# Parameters that say what else than an image from noise a call makes, or what more it needs.
OTHER_MODALITIES = {
    "num_frames": "video", "num_videos_per_prompt": "video", "frame_rate": "video",
    "video": "video", "video_length": "video", "fps": "video",
    "audio_length_in_s": "sound", "audio_duration_s": "sound", "audio_end_in_s": "sound",
    "num_waveforms_per_prompt": "sound", "lyrics": "sound", "audio_duration": "sound",
    "frame_size": "shapes", "gen_length": "text",
}  # fmt: skip
NEEDED_MORE = (
    "strength", "mask_image", "control_image", "controlnet_conditioning_scale", "hint",
    "source_prompt", "reference_image", "image_guidance_scale", "gligen_phrases", "depth_map",
    "adapter_conditioning_scale", "cond_size",
)  # fmt: skip
# Whose image is no required parameter, and needed all the same.
CHANGERS = ("Edit", "Upscale", "SuperResolution", "Refiner", "Img2Img", "Inpaint", "Decode")
PRIOR = "Prior"  # in the names of classes
CHANGES_LAYERS = ("processor(", ".processor =", "register_forward_hook")
EMBEDDED_FLAGS = ("guidance_embeds", "time_cond_proj_dim")
LISTS = re.compile(r"^(typing\.)?(Optional\[)?(typing\.)?list\[torch", re.IGNORECASE)
PROMPTS = ("prompt", "negative_prompt")
ARITHMETIC: dict[type, Callable[..., int]] = {ast.Mult: operator.mul, ast.Pow: operator.pow}


@dataclass(frozen=True)
class Takes:
    """What a pipeline's call takes.

    Attributes:
        modality: What an image is drawn for: nothing, a class, a prompt.
        parameters: The names of the call's parameters.
        guidance: `real` is classifier-free guidance, two evaluations of the network a step where
            it is above 1; `embedded` is a number that the network is told; `none`.
        guidance_name: The call's parameter for it; None where there is none.
        conditions: The parameters that take what prompts are encoded to, or classes.
        latents: Whether it takes x_T; else x_T is put in the place of what it draws itself.
        own_timesteps, own_sigmas: Whether it takes such lists.
        required: Those of `conditions` that it always wants.
        listed: Those of `conditions` that it takes as lists of one tensor per image.
    """

    modality: Modality
    parameters: frozenset[str]
    guidance: Guidance
    guidance_name: str | None
    conditions: tuple[str, ...]
    latents: bool
    own_timesteps: bool
    own_sigmas: bool
    required: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()


def what_it_takes(pipeline: Any) -> Takes:
    """Reads off what the call of a pipeline takes.

    Raises:
        ValueError: As `require_images`; or if no image of it could be drawn again.
    """
    kind = type(pipeline)
    require_images(kind)
    parameters = inspect.signature(kind.__call__).parameters
    if "generator" not in parameters or "num_inference_steps" not in parameters:
        raise ValueError(
            f"{kind.__name__} takes no generator or no number of steps, so that no image of it "
            "could be drawn again; such a pipeline is not sampled"
        )
    modality = _modality(pipeline, parameters)
    guidance, name = _guidance(pipeline, parameters)
    conditions = _conditions(parameters, modality)
    if modality == "text-to-image" and not conditions:
        raise ValueError(
            f"{kind.__name__} takes prompts as text alone (no prompt_embeds), so that they cannot "
            "be encoded once for all cells; such a pipeline is not sampled"
        )
    return Takes(
        modality,
        frozenset(parameters) - {"self", "kwargs"},
        guidance,
        name,
        conditions,
        "latents" in parameters,
        "timesteps" in parameters,
        "sigmas" in parameters,
        tuple(n for n in conditions if parameters[n].default is inspect.Parameter.empty),
        tuple(n for n in conditions if LISTS.search(str(parameters[n].annotation))),
    )


def networks_of(pipeline: Any) -> tuple[str, ...]:
    """Returns the names of the parts that predict the noise: `unet` or `transformer`, or two."""
    found = tuple(name for name in NETWORKS if getattr(pipeline, name, None) is not None)
    if not found:
        raise ValueError(
            f"{type(pipeline).__name__} has no unet and no transformer; only pipelines of one such "
            "network are sampled"
        )
    return found


def require_images(kind: Any) -> None:
    """Makes sure that a class of pipelines makes images from noise alone.

    Raises:
        ValueError: If it makes video or sound, or starts from an image.
    """
    if getattr(kind, "_load_connected_pipes", False):
        raise ValueError(
            f"a {kind.__name__} is made of two pipelines; give the folder of the one that draws, "
            "and what the other one makes of the prompts (image_embeds) as its conditions"
        )
    if PRIOR in kind.__name__:
        raise ValueError(
            f"a {kind.__name__} makes embeddings that another pipeline draws from, and no images; "
            "only pipelines that make images are sampled"
        )
    parameters = inspect.signature(kind.__call__).parameters
    for parameter, made in OTHER_MODALITIES.items():
        if parameter in parameters:
            raise ValueError(
                f"a {kind.__name__} makes {made}; only pipelines that make images are sampled"
            )
    more = [parameter for parameter in NEEDED_MORE if parameter in parameters]
    more += [
        parameter
        for parameter in ("image", "images", "image_embeddings")
        if parameter in parameters
        and (parameters[parameter].default is inspect.Parameter.empty or "prompt" not in parameters)
    ]
    more += [word for word in CHANGERS if word in kind.__name__]
    if more:
        raise ValueError(
            f"a {kind.__name__} starts from an image or another input ({', '.join(more)}); only "
            "pipelines that draw images from noise are sampled: text-to-image, class-to-image, "
            "unconditional"
        )


def _modality(pipeline: Any, parameters: Any) -> Modality:
    if "prompt" in parameters or "prompt_embeds" in parameters or "image_embeds" in parameters:
        return "text-to-image"
    if "class_labels" in parameters:
        unet = getattr(pipeline, "unet", None)
        takes_none = parameters["class_labels"].default is None
        if not takes_none or (unet is not None and unet.config.get("num_class_embeds")):
            return "class-to-image"
    return "unconditional"


def _guidance(pipeline: Any, parameters: Any) -> tuple[Guidance, str | None]:
    """Which guidance a call does, by its parameters and the network's configuration."""
    configs = [getattr(pipeline, name).config for name in networks_of(pipeline)]
    is_told = any(config.get(flag) for config in configs for flag in EMBEDDED_FLAGS)
    is_distilled = bool(pipeline.config.get("is_distilled"))
    for name in ("guidance_scale", "distilled_guidance_scale"):
        if is_told and name in parameters:
            return "embedded", name
    true = parameters.get("true_cfg_scale")
    if true is not None:
        return ("real", "true_cfg_scale") if (true.default or 0) > 1 else ("none", None)
    negative = any(name.startswith("negative_") for name in parameters)
    if "guidance_scale" not in parameters or is_distilled:
        return "none", None
    if negative or "class_labels" in parameters:
        return "real", "guidance_scale"
    return "embedded", "guidance_scale"


def _conditions(parameters: Any, modality: Modality) -> tuple[str, ...]:
    if modality == "unconditional":
        return ()
    if modality == "class-to-image":
        return ("class_labels",)
    with_images = "prompt" not in parameters
    return tuple(
        name
        for name in parameters
        if ("embeds" in name or "mask" in name)
        and "ip_adapter" not in name
        and (with_images or "image_embeds" not in name)
        and not name.startswith("num_")
    )


def hands_streams(kind: Any) -> bool:
    """Tells whether the source of a pipeline's call hands its generators to `scheduler.step`."""
    more = getattr(kind, "prepare_extra_step_kwargs", None)
    by_more = more is not None and 'extra_step_kwargs["generator"]' in inspect.getsource(more)
    for node in ast.walk(call_tree(kind)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.scheduler.step":
            names = [keyword.arg for keyword in node.keywords]
            return "generator" in names or (None in names and by_more)
    return False


def divisors_of(pipeline: Any) -> list[int]:
    """Returns what the height of a picture must be divisible by, as the source of a pipeline's call
    and of its checks says (`height % (self.vae_scale_factor * 2)`); empty where it says nothing."""
    kind, found = type(pipeline), set()
    for method in (kind.__call__, getattr(kind, "check_inputs", None)):
        if method is None:
            continue
        tree = _tree(method)
        names: dict[str, int | None] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                names[node.targets[0].id] = _number(node.value, pipeline, names)
        found |= {
            _number(node.right, pipeline, names)
            for node in ast.walk(tree)
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)
            and isinstance(node.left, ast.Name) and node.left.id == "height"
        }  # fmt: skip
    return sorted(number for number in found if number)


def _number(node: ast.expr, pipeline: Any, names: Mapping[str, int | None]) -> int | None:
    """The whole number that an expression is on a pipeline; None where it is none that is known."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        both = [_number(side, pipeline, names) for side in (node.left, node.right)]
        return None if None in both else ARITHMETIC[type(node.op)](*both)
    if not isinstance(node, ast.Attribute):
        return None
    path = ast.unparse(node).split(".")
    found = pipeline if path[0] == "self" else None
    for name in path[1:]:
        found = getattr(found, name, None)
    return found if type(found) is int else None


def changes_networks(kind: Any) -> bool:
    """Tells whether the source of a pipeline's call changes layers of its networks for a while, as
    perturbed-attention guidance does: two calls at once need networks of their own."""
    source = inspect.getsource(inspect.unwrap(kind.__call__))
    return any(word in source for word in CHANGES_LAYERS)


def call_tree(kind: Any) -> ast.AST:
    """Returns the syntax tree of a pipeline's call, as diffusers has it."""
    return _tree(kind.__call__)


def _tree(method: Callable[..., Any]) -> ast.AST:
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(method)))
    with PARSING:  # tasks ask side by side
        return ast.parse(source)
