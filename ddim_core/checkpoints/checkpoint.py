"""Checkpoints on disk: diffusers pipeline folders, written byte for byte alike, read offline.

This is the one layout that sampling knows; `adopt` brings other people's files into it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from ddim_core.checkpoints.latent import (
    LatentSpace,
    PromptEncoder,
    load_latent_space,
    load_prompt_encoder,
    require_complete,
)
from ddim_core.checkpoints.scheduler import scheduler_trained
from ddim_core.common.checks import require_choice
from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.scheduler_config import (
    FLOW_PREDICTION,
    LEARNED,
    predicted,
    require_undistilled,
    with_class,
    without_betas,
)
from ddim_core.diffusion.specs import NoiseSpec, PredictionType, Weights
from ddim_core.networks.backbones.registry import is_backbone, load_backbone
from ddim_core.networks.checks import require_justified, require_sane
from ddim_core.networks.denoisers import UNetModel
from ddim_core.networks.specs import Objective
from ddim_core.safe_files.settings import read_settings

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

WEIGHTS_NAME = "diffusion_pytorch_model.safetensors"
PICKLE_NAME = "diffusion_pytorch_model.bin"
RECORD_NAME = "ddim_flows.json"
MOST_STEPS = 10**12  # of a training
INDEX = "model_index.json"
NO_BETAS = (
    "the checkpoint's network is of a flow or an EDM and knows no schedule of betas, which the "
    "project's own DDIM, encoding, interpolation and the paper's figures need; draw it in a grid "
    "with --samplers own"
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A noise model and what has to be known to sample from it.

    Attributes:
        model: The network, ready to be called; of one that learns its variance too, what it
            predicts besides (its `whole`).
        schedule: The schedule it was trained on. A bare network folder has none and gets that of
            DDPM (linear, 1e-4 to 0.02, T = 1000), the default of diffusers' schedulers. None of a
            flow and of an EDM, which only diffusers' schedulers sample.
        prediction_type: `epsilon`, `sample`, `v_prediction`, or `flow_prediction`, the velocity
            of a flow (noise less image); `epsilon` for a bare network.
        resolution: Height and width of its images, in pixels.
        channels: 1 for grey images, 3 for RGB.
        training_step: Optimiser steps behind it; None if the folder does not say.
        name: The folder's name, for people.
        n_classes: Classes that the network is told of; None for an unconditional one.
        null_label: Its label for "no class", which guidance needs; None if it has none.
        latent: Where it draws latents: what makes pixels of them.
        prompts: Where it is told of a text: what makes embeddings of it.
        weights: `ema` or `raw`, where its source had both; else None.
        assumed: Sentences on what its source did not say.
    """

    model: UNetModel
    schedule: NoiseSchedule | None
    prediction_type: str
    resolution: int
    channels: int
    training_step: int | None
    name: str
    n_classes: int | None = None
    null_label: int | None = None
    latent: LatentSpace | None = None
    prompts: PromptEncoder | None = None
    weights: str | None = None
    assumed: tuple[str, ...] = ()

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is sampled: pixels, or latents."""
        if self.latent is None:
            return self.channels, self.resolution, self.resolution
        size = self.resolution // self.latent.factor
        return int(self.latent.decoder.config["latent_channels"]), size, size

    def require_schedule(self) -> NoiseSchedule:
        """Returns the schedule, for what cannot do without.

        Raises:
            ValueError: If there is none.
        """
        if self.schedule is None:
            raise ValueError(NO_BETAS)
        return self.schedule

    def images(self, x: Tensor) -> Tensor:
        """Makes pixels, about [-1, 1], of what was sampled."""
        return x if self.latent is None else self.latent.decode(x)


def is_step(value: Any) -> bool:
    """Tells a number of training steps; True and False are none."""
    return type(value) is int and 0 <= value <= MOST_STEPS


@dataclass(frozen=True)
class Provenance:
    """What `ddim_flows.json` says, a file of ours beside a network, which diffusers does not look
    at; see `Checkpoint`.

    Raises:
        ValueError: If a value is none of its kind.
    """

    training_step: int | None = None
    null_label: int | None = None
    weights: Weights | None = None
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.training_step is not None and not is_step(self.training_step):
            raise ValueError(
                f"training_step is {self.training_step!r:.50} in {RECORD_NAME}; it must be a "
                f"whole number in 0..{MOST_STEPS}"
            )
        if self.weights is not None:
            require_choice("weights", self.weights, get_args(Weights))

    @classmethod
    def read(cls, folder: Path) -> Provenance:
        told = read_settings(folder / RECORD_NAME) if is_there(folder / RECORD_NAME) else {}
        return cls(
            told.get("training_step"),
            told.get("null_label"),
            told.get("weights"),
            tuple(str(sentence) for sentence in told.get("assumed", ())),
        )

    def write(self, folder: Path) -> None:
        said = {k: v for k, v in asdict(self).items() if v not in (None, ())}
        told = {"training_step": self.training_step} | said
        (folder / RECORD_NAME).write_text(json.dumps(told, indent=2) + "\n")


def save_pipeline(
    folder: Path,
    unet: diffusers.UNet2DModel,
    noise: NoiseSpec,
    training_step: int | None,
    objective: Objective = "epsilon",
) -> None:
    """Writes a folder that `diffusers.DDPMPipeline.from_pretrained` opens.

    The same weights, schedule and step give the same bytes. `training_step`, and which label of a
    class-conditional network is "no class", go to a file of our own, which diffusers does not look
    at. Files of these names are overwritten.

    Args:
        folder: Made if it is not there.
        unet: The network to save, usually the moving average of the trained one.
        noise: The schedule it was trained on.
        training_step: Optimiser steps behind the weights, where they are known.
        objective: What it was trained to predict; of a flow, T alone of `noise` counts.
    """
    pipeline = diffusers.DDPMPipeline(unet=unet, scheduler=scheduler_trained(noise, objective))
    pipeline.save_pretrained(folder, safe_serialization=True)
    n_embeddings = unet.config["num_class_embeds"]
    null_label = n_embeddings - 1 if n_embeddings else None  # the last one, as `toy_unet` has it
    Provenance(training_step, null_label).write(folder)


def load_checkpoint(
    folder: Path, device: str = "cpu", on_card: bool = False, by_compiler: bool = False
) -> Checkpoint:
    """Opens a diffusers pipeline folder, or the folder of a bare `UNet2DModel`; never a network.

    A pipeline draws pixels (DDPM, DDIM), latents (LDM), or latents for a prompt (Stable
    Diffusion 1.x and 2.x).

    Args:
        folder: The local folder; weights must be safetensors.
        device: Where the network is put.
        on_card, by_compiler: How it runs there, see `UNetModel`.

    Raises:
        ValueError: If the folder is not there, lacks weights or a configuration, holds pickled
            weights only, or holds a network that learns its variance or takes labels that are not
            class numbers.
    """
    try:
        return _load_checkpoint(folder, device, on_card, by_compiler)
    except ValueError:
        raise
    except Exception as error:  # other people's files can be wrong in every way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{folder.name} cannot be opened as a checkpoint: {reason}") from error


def _load_checkpoint(folder: Path, device: str, on_card: bool, by_compiler: bool) -> Checkpoint:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r}; a checkpoint is a local folder")
    is_pipeline = (folder / "unet").is_dir() or is_there(folder / INDEX)
    unet = _load_unet(folder / "unet" if is_pipeline else folder).to(device)
    schedule: NoiseSchedule | None = NoiseSchedule.linear(1000, 1e-4, 0.02)
    prediction_type, variance = "epsilon", None
    if is_pipeline:
        config = scheduler_config(folder)
        variance = config.get("variance_type")
        schedule = None if without_betas(config) else NoiseSchedule.from_diffusers(config)
        prediction_type = predicted(config)
        kinds = (*get_args(PredictionType), *([FLOW_PREDICTION] if schedule is None else []))
        require_choice("prediction_type", prediction_type, kinds)
    if unet.config["out_channels"] != unet.config["in_channels"] and variance not in LEARNED:
        raise ValueError(
            f"the network answers with twice its {unet.config['in_channels']} channels and "
            f"variance_type is {variance} in scheduler_config.json; if the second half is a "
            "variance, it must be learned_range there (or learned)"
        )
    latent = load_latent_space(folder, device, on_card) if is_pipeline else None
    with_prompts = isinstance(unet, diffusers.UNet2DConditionModel)
    if with_prompts and latent is None:
        raise ValueError("the network is told of a text and has no vae beside it")
    known = Provenance.read(folder)
    n_embeddings, null_label = unet.config.get("num_class_embeds"), known.null_label
    if null_label is not None and null_label != (n_embeddings or 0) - 1:
        raise ValueError(
            f"null_label is {null_label} in {RECORD_NAME}; of {n_embeddings} class embeddings it "
            "must be the last"
        )
    return Checkpoint(
        model=UNetModel(unet, on_card, by_compiler),
        schedule=schedule,
        prediction_type=prediction_type,
        resolution=int(unet.config["sample_size"]) * (latent.factor if latent else 1),
        channels=latent.channels if latent else int(unet.config["in_channels"]),
        training_step=known.training_step,
        name=folder.name,
        n_classes=n_embeddings if null_label is None else null_label,
        null_label=null_label,
        latent=latent,
        prompts=load_prompt_encoder(folder, device, on_card) if with_prompts else None,
        weights=known.weights,
        assumed=known.assumed,
    )


def scheduler_config(folder: Path) -> Config:
    """Returns what a pipeline folder's scheduler_config.json says, with its class.

    Raises:
        ValueError: If it is not there or no JSON, or of a network that is not sampled.
    """
    index = read_settings(folder / INDEX) if is_there(folder / INDEX) else {}
    require_undistilled(index, read_settings(_there(folder / "unet" / "config.json")))
    return with_class(read_settings(_there(folder / "scheduler" / "scheduler_config.json")), index)


def _load_unet(folder: Path) -> Any:
    config = read_settings(_there(folder / "config.json"))
    _require_known(config, folder)
    if not is_there(folder / WEIGHTS_NAME):
        raise ValueError(_missing_weights(folder))
    if config["_class_name"] == "UNet2DModel":
        require_justified(diffusers.UNet2DModel, folder, folder.name)
    require_sane(config, folder.name)
    if is_backbone(config):
        return load_backbone(config, folder / WEIGHTS_NAME)
    with_prompts = config["_class_name"] == "UNet2DConditionModel"
    unet = (
        diffusers.UNet2DConditionModel if with_prompts else diffusers.UNet2DModel
    ).from_pretrained(
        folder, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
    )
    require_complete(unet, folder.name)
    return unet


def _require_known(config: Mapping[str, Any], folder: Path) -> None:
    kind = config.get("_class_name")
    with_text = folder.name == "unet" and (folder.parent / "text_encoder").is_dir()
    with_prompts = kind == "UNet2DConditionModel" and with_text
    if kind != "UNet2DModel" and not is_backbone(config) and not with_prompts:
        raise ValueError(
            f"{folder.name}/config.json describes a {kind}; it must be a UNet2DModel, or the "
            "UNet2DConditionModel of a whole pipeline"
        )
    if config["out_channels"] not in _answers(config["in_channels"], with_prompts):
        raise ValueError(
            f"the network has {config['in_channels']} input and {config['out_channels']} output "
            "channels; they must be equal, or twice as many come out, the second half for a "
            "variance (of networks that are told of no text)"
        )
    for name in ("class_embed_type", "addition_embed_type", "encoder_hid_dim_type"):
        if config.get(name):
            raise ValueError(
                f"{name} is {config[name]!r}; class labels must be numbers (num_class_embeds), or "
                "the network unconditional, or told of one CLIP text (Stable Diffusion 1.x, 2.x)"
            )
    if with_prompts and config.get("num_class_embeds"):
        raise ValueError("the network is told of prompts and of classes; only one is supported")
    if type(config.get("sample_size")) is not int:
        raise ValueError(f"sample_size is {config.get('sample_size')}; it must be one whole number")


def _answers(n_channels: int, with_prompts: bool) -> tuple[int, ...]:
    return (n_channels,) if with_prompts else (n_channels, 2 * n_channels)


def _missing_weights(folder: Path) -> str:
    if is_there(folder / PICKLE_NAME):
        return (
            f"{folder.name} holds its weights as a pickle, {PICKLE_NAME}, which can run code when "
            "it is read. If you trust it, convert it once: UNet2DModel.from_pretrained(folder, "
            "use_safetensors=False).save_pretrained(folder)"
        )
    return f"{folder.name} holds no weights; {WEIGHTS_NAME} is missing"


def _there(path: Path) -> Path:
    if not path.exists():
        raise ValueError(f"{path.parent.name}/{path.name} is missing; a checkpoint must have it")
    return path
