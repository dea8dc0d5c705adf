"""What is asked of a pipeline, and the keyword arguments that its call is given for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim_core.common.checks import require_at_least, settle_types
from ddim_core.common.foreign import Keywords
from ddim_core.pipelines.takes import PROMPTS, Takes
from ddim_core.samplers.name import SamplerName
from ddim_core.samplers.scheduler import BETWEEN

Conditions = Mapping[str, Tensor]
"""What images are drawn for, by the call's own parameter names: embeddings and masks of prompts
(`prompt_embeds`, `negative_prompt_embeds`, ...), or `class_labels` int64. Each has one row per
image, or one row for all."""


LENGTHS = "prompt_cu_seqlens"


@dataclass(frozen=True)
class Setting:
    """How a pipeline draws.

    Attributes:
        sampler: The scheduler of diffusers.
        steps: S, the steps asked for; where the sampler lists timesteps or sigmas, their number.
        guidance: Scale of classifier-free guidance (1 is none), or the number that the network is
            told.
        eta: Noise fraction in [0, 1] of the samplers that have one.
        seed: Keys the noise, together with the image's index.
        interval: The noise levels, from low to high and both with, at which there is guidance, in
            the unit of `levels_of`; None: at all.
    """

    sampler: SamplerName
    steps: int
    guidance: float = 1.0
    eta: float = 0.0
    seed: int = 0
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        settle_types(self)
        require_at_least("steps", self.steps, 1)
        require_at_least("seed", self.seed, 0)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}; it must lie in [0, 1]")
        if not 0.0 <= self.guidance < math.inf:
            raise ValueError(f"guidance is {self.guidance}; it must be at least 0")
        listed = self.sampler.n_listed
        if listed is not None and listed != self.steps:
            raise ValueError(f"steps is {self.steps}; {self.sampler.text} lists {listed}")


def call_arguments(
    takes: Takes,
    conditions: Conditions,
    streams: Sequence[torch.Generator],
    steps: int,
    guidance: float,
    eta: float,
    size: tuple[int, int],
    latents: Tensor | None,
) -> Keywords:
    """Returns what a pipeline's call is given for one batch.

    Args:
        takes: What the call takes.
        conditions: One row per image; on the device and in the number format of the pipeline.
        streams: One per image.
        steps, guidance, eta: The setting; what the call has no parameter for is left out.
        size: Height and width in pixels; 0 is the pipeline's own.
        latents: x_T; None where the call draws it.
    """
    known = takes.parameters
    given: Keywords = {name: None for name in PROMPTS if conditions and name in known}
    given |= conditions
    if "class_labels" in given:
        given["class_labels"] = given["class_labels"].tolist()
    given |= {name: list(given[name]) for name in takes.listed if name in given}
    given |= _summed_lengths(takes, conditions)
    optional = {
        "batch_size": len(streams), "eta": eta, "height": size[0] or None,
        "width": size[1] or None, "use_resolution_binning": False, "latents": latents,
    }  # fmt: skip
    given |= {name: v for name, v in optional.items() if name in known and v is not None}
    if takes.guidance_name is not None:
        given[takes.guidance_name] = guidance
    given |= between(takes, steps)
    return given | {
        "generator": list(streams),
        "num_inference_steps": steps,
        "output_type": "np",
    }


def _summed_lengths(takes: Takes, conditions: Conditions) -> Keywords:
    """What tells a call where each prompt begins in a row of all of them (Kandinsky 5): all rows of
    a batch are of one length."""
    return {
        f"{side}{LENGTHS}": torch.arange(len(value) + 1, dtype=torch.int32) * value.shape[1]
        for side in ("", "negative_")
        for name, value in conditions.items()
        if f"{side}{LENGTHS}" in takes.parameters and name == f"{side}prompt_embeds_qwen"
    }


def plain_call(
    takes: Takes, setting: Setting, size: tuple[int, int], encoded: Collection[str] = ()
) -> Keywords:
    """Returns the arguments of a call of plain diffusers that are the same for all images: what a
    snippet names beside the prompts, besides the scheduler.

    A list of timesteps or sigmas is among them where the call takes it; elsewhere it is the
    scheduler's `set_timesteps` that must be given it.

    Args:
        takes: What the call takes.
        setting: What is drawn.
        size: Height and width in pixels, of a call that takes them; else (0, 0).
        encoded: Those of `takes.conditions` that it is given; empty where it is given texts.
    """
    given: Keywords = {name: None for name in PROMPTS if encoded and name in takes.parameters}
    given |= {"num_inference_steps": setting.steps}
    if takes.guidance_name is not None:
        given[takes.guidance_name] = setting.guidance
    given |= between(takes, setting.steps)
    if "eta" in takes.parameters and setting.eta != 0.0:
        given["eta"] = setting.eta
    if setting.sampler.timesteps and takes.own_timesteps:
        given["timesteps"] = list(setting.sampler.timesteps)
    if setting.sampler.own_sigmas and takes.own_sigmas:
        given["sigmas"] = list(setting.sampler.own_sigmas)
    if size[0]:
        given |= {"height": size[0], "width": size[1]}
    if "use_resolution_binning" in takes.parameters:
        given["use_resolution_binning"] = False
    return given


def between(takes: Takes, steps: int) -> Keywords:
    """Returns what a call must be told of a timestep between its two, where it asks otherwise for
    one that other numbers of steps have not (SANA-Sprint)."""
    return {BETWEEN: None} if BETWEEN in takes.parameters and steps != 2 else {}


def rows_for(conditions: Conditions, rows: Sequence[int]) -> dict[str, Tensor]:
    """Returns the chosen rows of conditions; what has one row has it for all."""
    return {
        name: value.expand(len(rows), *value.shape[1:]) if len(value) == 1 else value[list(rows)]
        for name, value in conditions.items()
    }


def placed(conditions: Conditions, device: torch.device | str, dtype: torch.dtype) -> Conditions:
    """Returns conditions on a device, those that are floating in a pipeline's number format."""
    return {
        name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
        for name, value in conditions.items()
    }


def blank_conditions(pipeline: Any, takes: Takes) -> dict[str, Tensor]:
    """Returns stand-ins of one row, for a rehearsal that never asks the network about them."""
    if takes.modality == "class-to-image":
        return {"class_labels": torch.zeros(1, dtype=torch.int64)}
    blank: dict[str, Tensor] = {}
    layers = getattr(pipeline, "text_encoder_select_layers", None)  # of Krea 2, one beside another
    for name in takes.conditions:
        if name.startswith("negative_") and takes.guidance != "real":
            continue
        if "mask" in name:
            blank[name] = torch.ones(1, 7, dtype=torch.int64)
        elif "pooled" in name or "image_embeds" in name:
            blank[name] = torch.zeros(1, _pooled_width(pipeline))
        else:
            blank[name] = torch.zeros(1, 7, *([len(layers)] if layers else []), 16)
    return blank


def _pooled_width(pipeline: Any) -> int:
    """The width of the one embedding of a whole prompt, which SDXL checks before anything else."""
    unet = getattr(pipeline, "unet", None)
    whole = unet.config.get("projection_class_embeddings_input_dim") if unet is not None else None
    each = unet.config.get("addition_time_embed_dim") if unet is not None else None
    return int(whole) - 6 * int(each) if whole and each else 16
