"""The x0 that is predicted step by step, of a few images of each cell, for the page of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flows.grid.cells import CellFutures
from flows.grid.inputs import GridInputs
from flows.requests.grid import GridRequest
from flows.run.runners import on_device
from tasks.sampling.records import Trajectories
from tasks.sampling.trajectory import draw_trajectories, why_none
from tasks.storage.naming import named

USUAL = 4  # images of a cell, of a network of pixels


def require_known_x0(request: GridRequest, inputs: GridInputs) -> None:
    """Makes sure, where trajectories are asked for, that every cell has some.

    Raises:
        ValueError: If one has none, with why.
    """
    n, ref = request.report.trajectories, inputs.checkpoint.ref
    for cell in inputs.cells if n else ():
        if reason := why_none(cell, ref):
            raise ValueError(f"trajectories is {n}, and {cell.label} has none: {reason}; give 0")


def predicted(
    request: GridRequest, inputs: GridInputs, landed: Sequence[CellFutures]
) -> tuple[list[Trajectories | None], list[str]]:
    """Draws the first images of landed cells again, and keeps the x0 on the way.

    Returns:
        What each cell has, in their order; None where it has none. And what failed, in words: a
        page lacks it, and the grid is whole without it.
    """
    n, checkpoint = request.report.trajectories, inputs.checkpoint
    if n is None:
        n = 0 if checkpoint.is_latent or checkpoint.pipeline else USUAL
    n = min(n, request.grid.n_images, request.grid.shard_size)
    found: list[Any] = [None] * len(landed)
    with on_device(request.machine.runner, request.machine.device):
        for i, futures in enumerate(landed):
            if n and not why_none(futures.cell, checkpoint.ref):
                task = named(draw_trajectories, f"x0 {futures.cell.label}")
                found[i] = task.submit(futures.cell, checkpoint.ref, n, request.machine.execution)
    failed = []
    for i, future in enumerate(found):
        if future is None:
            continue
        future.wait()
        if future.state.is_completed():
            found[i] = future.result()
        else:
            found[i] = None
            label = landed[i].cell.label
            failed.append(f"no x0 of {label} on the page: {future.state.message}")
    return found, failed
