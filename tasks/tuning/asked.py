"""What can be tuned of a checkpoint: samplers that can be told where to ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ddim_core.diffusion.specs import GridCell, SchedulerSpec
from ddim_core.samplers.canonical import canonical
from ddim_core.samplers.catalogue import Family
from ddim_core.samplers.families import family_of
from ddim_core.samplers.name import parse_sampler
from ddim_core.tuning.positions import needs_steps, scale_of, untuned
from ddim_core.tuning.target import USUAL
from ddim_core.tuning.tunable import NotTunableError
from tasks.checkpoints.scheduler import own_scheduler
from tasks.storage.store import ArtifactRef
from tasks.tuning.runs import visits_of

USUALLY: dict[Family, tuple[str, ...]] = {"vp": ("dpmpp_2m",), "flow": ("unipc", "flow_euler")}
"""Samplers that are tuned where none is named."""


def settings_to_tune(
    base: GridCell, checkpoint: ArtifactRef, samplers: Sequence[str], calls: Sequence[int]
) -> list[tuple[GridCell, int]]:
    """Returns the cells without lists, each with its network calls.

    Args:
        base: How the checkpoint is drawn, with any sampler of diffusers.
        checkpoint: It.
        samplers: By name; empty takes those that are usual for its family.
        calls: How many network calls an image; guidance, which may double them, left out.

    Raises:
        NotTunableError: If a named sampler draws noise on the way, or cannot be told where to ask.
        ValueError: If it does not fit the checkpoint, or no number of steps makes so many calls.
    """
    own, visits = own_scheduler(base, checkpoint), visits_of(base, checkpoint)
    family = family_of(own)
    if family not in USUAL:
        raise NotTunableError(f"nothing is tuned: {untuned(family)}")
    cells = []
    named = [canonical(parse_sampler(text), own) for text in samplers or USUALLY[family]]
    for name in dict.fromkeys(named):
        for n_calls in dict.fromkeys(calls):
            steps = needs_steps(name, own, n_calls)
            scale_of(name, own, visits, steps)
            cells.append((_with(base, name.text, steps), n_calls))
    return cells


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
