"""A cell's network as its sampler asks it: where and by what it is guided, and how often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.checkpoints.conditioning import as_guide, conditioned, for_one_run
from ddim_core.diffusion.sampling import Denoiser
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import GridCell, SamplerSpec, SchedulerSpec
from ddim_core.samplers.families import inside_of, levels_of
from tasks.checkpoints.memory import guide_in_memory
from tasks.checkpoints.scheduler import scheduler_in
from tasks.images.stored_prompts import stored_prompts
from tasks.storage.artifact import ArtifactRef

Inside = Callable[[float], bool]


class AskedNetwork:
    """What a cell's sampler asks, of any of its images.

    Args:
        cell: It.
        checkpoint: Which one it is of.
        loaded: That, on the device.
        device: Where it runs.

    Raises:
        ValueError: As `guided_where`.
    """

    def __init__(
        self, cell: GridCell, checkpoint: ArtifactRef, loaded: Checkpoint, device: str
    ) -> None:
        self._spec, self._loaded, self._device = cell.sampler, loaded, device
        self._replaced = NoiseSchedule.from_spec(cell.noise) if cell.noise else None
        self._prompts = stored_prompts(cell.prompts) if cell.prompts else []
        self._inside, self._guide = guided_where(cell, checkpoint), _guide_of(cell, device)

    @property
    def schedule(self) -> NoiseSchedule:
        """The cell's, or the checkpoint's own; ValueError if there is neither."""
        return self._replaced or self._loaded.require_schedule()

    def of_run(self, indices: Sequence[int], whole: bool = False) -> Denoiser:
        """Returns the network for one run: told its last guess and the images' classes or prompts,
        and guided.

        Args:
            indices: Images, by their numbers.
            whole: With what it says of the variance.
        """
        led_by = None
        if guide := self._guide:
            network = self._own_guesses(guide, whole)
            led_by = as_guide(guide, self._loaded, indices, self._device, network)
        return conditioned(
            self._loaded, indices, self._spec.guidance_scale, self._device, self._prompts,
            network=self._own_guesses(self._loaded, whole), inside=self._inside,
            channels=self._spec.guidance_channels, guide=led_by,
        )  # fmt: skip

    def further_calls(self, timesteps: Sequence[float]) -> int:
        """How often guidance asks besides; see `further_calls`."""
        return further_calls(timesteps, self._spec, self._inside)

    def _own_guesses(self, of: Checkpoint, whole: bool) -> Any:
        asked = of.model.whole if whole else of.model
        return for_one_run(
            of, self._replaced or self._loaded.schedule, self._spec.prediction_type, asked
        )


def guided_where(cell: GridCell, checkpoint: ArtifactRef | None) -> Inside | None:
    """Returns what tells of a timestep whether a cell is guided there; None where it always is.

    Raises:
        ValueError: If the timesteps of the checkpoint's network tell no noise level.
    """
    interval = cell.sampler.guidance_interval
    return None if interval is None else inside_of(interval, scheduler_in(cell, checkpoint))


def level_at(cell: GridCell, checkpoint: ArtifactRef | None) -> Callable[[float], float]:
    """Returns what tells the noise level of a timestep of a cell's network; raises as
    `levels_of`."""
    return levels_of(scheduler_in(cell, checkpoint))


def noise_levels(
    cell: GridCell, checkpoint: ArtifactRef | None, top: float
) -> list[tuple[float, float]]:
    """Returns the whole timesteps of a cell's network up to the noisiest, and that, each with its
    noise level, which is straight between two of them; raises as `levels_of`."""
    level = level_at(cell, checkpoint)
    return [(t, level(t)) for t in sorted({*map(float, range(int(top) + 1)), top})]


def guided_between(cell: GridCell, interval: tuple[float, float] | None) -> GridCell:
    """Returns a cell that is guided between two noise levels alone; None is at all."""
    return replace(cell, sampler=replace(cell.sampler, guidance_interval=interval))


def _guide_of(cell: GridCell, device: str) -> Checkpoint | None:
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
