"""A short run of a scheduler on stand-ins for images: what it cannot do shows before a network is
asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import SamplerName
from ddim_core.samplers.scheduler import learns_variance, scheduler_for, set_steps, told_of
from ddim_core.samplers.streams import image_streams

IMAGES = (0, 1)
SHAPE = (4, 4, 4)
PLAUSIBLE_MU = 0.7  # a shift by the size of the picture, where the real one is not known yet


def require_steps(name: SamplerName, own: Mapping[str, Any], steps: int) -> None:
    """Makes sure that a sampler can take so many steps for a checkpoint, with stand-ins for images
    and an answer that makes sense to none.

    Args:
        name, own: As in `scheduler_for`.
        steps: S.

    Raises:
        ValueError: As `scheduler_for` and `set_steps`; if a step fails or leaves no finite numbers.
    """
    scheduler = scheduler_for(name, own)
    shifts = scheduler.config.get("use_dynamic_shifting")
    set_steps(scheduler, name, steps, mu=PLAUSIBLE_MU if shifts else None)
    x_T = ImageNoise(0, IMAGES, SHAPE).x_T()
    n_parts = 2 if learns_variance(scheduler) else 1

    def answer(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([0.1 * x] * n_parts, dim=1)

    try:
        with torch.inference_mode():
            x = draw(answer, scheduler, x_T, image_streams(0, IMAGES)).x
    except Exception as error:  # a scheduler of another kind of model can fail in every way
        raise ValueError(f"{name.text} cannot take {steps} steps: {told_of(error)}") from error
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name.text} with {steps} steps leaves numbers that are not finite")
