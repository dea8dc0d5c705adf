"""Where a cell is guided, by what, and how often its network is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.diffusion.guidance import within
from ddim_core.diffusion.specs import GridCell, SamplerSpec, SchedulerSpec
from ddim_core.samplers.families import levels_of
from tasks.checkpoints.memory import guide_in_memory
from tasks.checkpoints.scheduler import scheduler_in
from tasks.storage.artifact import ArtifactRef

Inside = Callable[[float], bool]


def guided_where(cell: GridCell, checkpoint: ArtifactRef | None) -> Inside | None:
    """Returns what tells of a timestep whether a cell is guided there; None where it always is.

    Raises:
        ValueError: If the timesteps of the checkpoint's network tell no noise level.
    """
    interval = cell.sampler.guidance_interval
    if interval is None:
        return None
    level = levels_of(scheduler_in(cell, checkpoint))
    return lambda t: within(interval, level(t))


def guide_of(cell: GridCell, device: str) -> Checkpoint | None:
    """Returns the checkpoint that guides a cell, on a device; None where none does."""
    if cell.sampler.guide is None:
        return None
    return guide_in_memory(ArtifactRef(cell.sampler.guide, "folder"), device, cell.dtype, cell.card)


def further_calls(
    timesteps: Sequence[float], spec: SamplerSpec | SchedulerSpec, inside: Inside | None
) -> int:
    """Returns how often guidance asks a cell's networks besides: with the class and without, or its
    guide.

    Args:
        timesteps: Where its sampler asks, one for each evaluation.
        spec: Its sampler.
        inside: Of `guided_where`.
    """
    one_half = spec.guidance_scale == 0.0 and spec.guidance_channels is None
    if spec.guidance_scale == 1.0 or one_half:
        return 0
    return len(timesteps) if inside is None else sum(map(inside, timesteps))
