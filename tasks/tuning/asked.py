"""What can be tuned of a checkpoint: samplers that can be told where to ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ddim_core.diffusion.specs import GridCell, SchedulerSpec
from ddim_core.samplers.canonical import is_own
from ddim_core.samplers.catalogue import OWN
from ddim_core.samplers.families import family_of
from ddim_core.samplers.name import parse_sampler
from ddim_core.tuning.asked import settings_asked
from ddim_core.tuning.target import USUAL
from tasks.checkpoints.scheduler import own_scheduler
from tasks.storage.store import ArtifactRef
from tasks.tuning.runs import visits_of


def settings_to_tune(
    base: GridCell, checkpoint: ArtifactRef, samplers: Sequence[str], calls: Sequence[int]
) -> list[tuple[GridCell, int]]:
    """Returns the cells without lists, each with its network calls.

    Args:
        base: How the checkpoint is drawn, with any sampler of diffusers.
        checkpoint: It.
        samplers, calls: As of `settings_asked`.

    Raises:
        ValueError: As `settings_asked`.
    """
    own, visits = own_scheduler(base, checkpoint), visits_of(base, checkpoint)
    asked = settings_asked(own, samplers, calls, visits)
    return [(_with(base, name.text, steps), n_calls) for name, steps, n_calls in asked]


def without_own_twice(
    samplers: Sequence[str], base: GridCell, checkpoint: ArtifactRef
) -> tuple[str, ...]:
    """Returns samplers once each, without `own` where another one draws as it does."""
    own, names = own_scheduler(base, checkpoint), tuple(dict.fromkeys(samplers))
    others = [name for name in names if name != OWN]
    return tuple(others) if any(is_own(parse_sampler(name), own) for name in others) else names


def long_run_cell(base: GridCell, checkpoint: ArtifactRef) -> GridCell:
    """Returns the cell of the long run that short ones are compared with; its steps are 1."""
    own = own_scheduler(base, checkpoint)
    sampler = parse_sampler(USUAL[family_of(own)])
    try:
        visits_of(base, checkpoint)(sampler, 8)
    except ValueError:  # such as Heun's on a flow that shifts by the picture's size
        sampler = parse_sampler("own")
    return _with(base, sampler.text, 1)


def _with(cell: GridCell, sampler: str, steps: int) -> GridCell:
    assert isinstance(cell.sampler, SchedulerSpec)
    return replace(cell, sampler=replace(cell.sampler, sampler=sampler, steps=steps))
