"""CLIP weights in open_clip's layout (which is OpenAI's own) as a `CLIPModel` of transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.image_scores.networks.pictures import MEAN, STD
from ddim_core.networks.building import LOADING

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

# Pixels of an image head by width, of the towers of which open_clip does not take 64.
HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}  # ViT-H, ViT-g, ViT-bigG
TEXT_HEAD = 64
FIRST_LARGEST = 2  # as `eos_token_id`: the text ends at its largest token, as open_clip has it
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
NORMS = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
}
TRANSPOSED = ("visual.proj", "text_projection")
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(weight|bias)")
IN_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip
IN_PROJ = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)")
# Of the network's form, not of its weights.
LEFT_OUT = frozenset({"attn_mask", "input_resolution", "context_length", "vocab_size"})


def clip_of(state: Mapping[str, Tensor], told: Config | None, what: str) -> Any:
    """Builds a `CLIPModel` of transformers with weights of open_clip's layout, in float32.

    Sizes are told by the weights' shapes. What these do not tell stands in `open_clip_config.json`:
    the heads and whether the activation is QuickGELU. Without it heads are those of the published
    sizes, and the activation is GELU, as open_clip's where its name does not say quickgelu.

    Args:
        state: Names to tensors.
        told: The content of `open_clip_config.json`, if there is one.
        what: The network, for messages.

    Raises:
        ValueError: If it is no CLIP of two transformers, or was made for other pictures.
    """
    state = {name.removeprefix("module.").removeprefix("text."): x for name, x in state.items()}
    config = config_from(state, told, what)
    renamed = _renamed(state, what)
    with LOADING:
        network = transformers.CLIPModel(config)
        try:
            network.load_state_dict(renamed)
        except RuntimeError as error:
            raise ValueError(
                f"{what} is no CLIP in open_clip's layout: {str(error).splitlines()[-1].strip()}"
            ) from error
    return network.float().eval().requires_grad_(False)


def config_from(state: Mapping[str, Tensor], told: Config | None, what: str) -> Any:
    """Returns the configuration of transformers for weights of open_clip's layout; as `clip_of`."""
    asked = (told or {}).get("model_cfg", told or {})
    vision, text = asked.get("vision_cfg") or {}, asked.get("text_cfg") or {}
    for tower, foreign in ((vision, "timm_model_name"), (text, "hf_model_name")):
        if tower.get(foreign):
            raise ValueError(f"{what} has a tower {tower[foreign]!r}; it must be CLIP's own")
    _require_pictures((told or {}).get("preprocess_cfg") or {}, what)
    try:
        width, _, _, patch = state["visual.conv1.weight"].shape
        places = len(state["visual.positional_embedding"])
        length, text_width = state["positional_embedding"].shape
        vocabulary, projection = len(state["token_embedding.weight"]), state["text_projection"]
        hidden, text_hidden = (
            len(state[f"{tower}transformer.resblocks.0.mlp.c_fc.weight"])
            for tower in ("visual.", "")
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{what} is no CLIP in open_clip's layout: it lacks {error}") from error
    shared = {"hidden_act": "quick_gelu" if asked.get("quick_gelu") else "gelu"}
    return transformers.CLIPConfig(
        projection_dim=projection.shape[1],
        vision_config={
            **shared, "hidden_size": width, "intermediate_size": hidden, "patch_size": patch,
            "image_size": patch * round((places - 1) ** 0.5), "projection_dim": projection.shape[1],
            "num_hidden_layers": _layers(state, "visual."),
            "num_attention_heads": width // vision.get("head_width", HEAD_WIDTHS.get(width, 64)),
        },
        text_config={
            **shared, "hidden_size": text_width, "intermediate_size": text_hidden,
            "vocab_size": vocabulary, "max_position_embeddings": length,
            "projection_dim": projection.shape[1], "num_hidden_layers": _layers(state, ""),
            "num_attention_heads": text.get("heads", text_width // TEXT_HEAD),
            "eos_token_id": FIRST_LARGEST, "bos_token_id": vocabulary - 2,
        },
    )  # fmt: skip


def _require_pictures(told: Config, what: str) -> None:
    for name, ours in (("mean", MEAN), ("std", STD)):
        theirs = told.get(name)
        if theirs is not None and max(abs(a - b) for a, b in zip(theirs, ours, strict=True)) > 1e-6:
            raise ValueError(
                f"{what} wants pictures of {name} {theirs}; the scores give it OpenAI's, {ours}"
            )


def _layers(state: Mapping[str, Tensor], tower: str) -> int:
    found = (BLOCK.fullmatch(name) for name in state)
    return len({match[2] for match in found if match and (match[1] or "") == tower})


def _renamed(state: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in LEFT_OUT:
            continue
        norm, _, end = name.rpartition(".")
        if name in NAMES:
            renamed[NAMES[name]] = value.T if name in TRANSPOSED else value
        elif norm in NORMS:
            renamed[f"{NORMS[norm]}.{end}"] = value
        elif match := IN_PROJ.fullmatch(name):
            for part, third in zip("qkv", value.chunk(3), strict=True):
                renamed[f"{_place(match)}.self_attn.{part}_proj.{match[3]}"] = third
        elif (match := BLOCK.fullmatch(name)) and match[3] in IN_BLOCK:
            renamed[f"{_place(match)}.{IN_BLOCK[match[3]]}.{match[4]}"] = value
        else:
            raise ValueError(f"{what} is no CLIP in open_clip's layout: it has {name[:80]!r}")
    return renamed


def _place(match: re.Match[str]) -> str:
    tower = "vision_model" if match[1] else "text_model"
    return f"{tower}.encoder.layers.{match[2]}"
