"""A cell at work: its tasks submitted in the order in which they need each other, and its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from prefect.futures import PrefectFuture

from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import GridCell
from ddim_core.images.sources.source import dataset_name
from flows.grid.inputs import GridInputs
from flows.requests.grid import GridRequest
from flows.run.runners import on_device
from tasks.cells.classes import ClassScores, judge_classes
from tasks.cells.embed import FeatureShard, embed_images
from tasks.cells.score import ScoredCell, score_cell
from tasks.cells.table import GridProtocol, require_own_device, row_of
from tasks.checkpoints.scheduler import scheduler_of
from tasks.image_scores.judge import JudgedImages, judge_images
from tasks.image_scores.mean import mean_of_images
from tasks.sampling.draw import task_for
from tasks.sampling.pipeline import by_pipeline, laid_over
from tasks.sampling.shards import Shard
from tasks.sampling.trajectory import draw_trajectories, drawn_together, why_none
from tasks.storage.artifact import Trajectories
from tasks.storage.naming import named

USUALLY_TRACED = 4  # images of a cell, of a network of pixels


class CellsFailedError(RuntimeError):
    """Some cells have no score; the message names each with its reason.

    Attributes:
        landed: The digests of the rows of the others.
    """

    def __init__(self, message: str, landed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.landed = list(landed)


@dataclass(frozen=True)
class CellFutures:
    """A cell at work."""

    cell: GridCell
    shards: list[PrefectFuture[Shard]]
    features: list[PrefectFuture[FeatureShard]]
    classes: PrefectFuture[ClassScores] | None
    score: PrefectFuture[ScoredCell]
    judged: dict[str, list[PrefectFuture[JudgedImages]]]  # by the column of a score of images

    @property
    def everything(self) -> list[PrefectFuture[Any]]:
        """All tasks of the cell, in the order in which they need each other."""
        classes = [self.classes] if self.classes else []
        judged = chain.from_iterable(self.judged.values())
        return [*self.shards, *self.features, *classes, *judged, self.score]

    def wait(self) -> bool:
        """Waits for all of it; tells whether all of it completed."""
        for future in self.everything:
            future.wait()  # only this makes a future know its final state
        return all(future.state.is_completed() for future in self.everything)

    @property
    def reason(self) -> str:
        """The message of what failed first: sampling, features, or else the score itself."""
        states = [future.state for future in self.everything]
        failed = next(state for state in states if not state.is_completed())
        return str(failed.message).removeprefix("Task run encountered an exception ")


def submit_images(
    request: GridRequest, inputs: GridInputs, cell: GridCell, ranges: Sequence[tuple[int, int]]
) -> list[Any]:
    """Submits the drawing of a cell's images, a shard for each [start, stop).

    Raises:
        ValueError: If the cell is of another kind of device.
    """
    execution, ref = request.machine.execution, inputs.checkpoint.ref
    require_own_device(cell, execution.device)
    more = {}
    if by_pipeline(cell):
        more = {"encoded": inputs.conditions.get(laid_over(cell))}
    with on_device(request.machine.runner, request.machine.device):
        return [
            named(task_for(cell), _shard(request, cell, start)).submit(
                cell, ref, start, stop, execution, **more
            )
            for start, stop in ranges
        ]


def submit_features(
    request: GridRequest,
    inputs: GridInputs,
    cell: GridCell,
    shards: Sequence[tuple[int, Any]],
) -> list[Any]:
    """Submits the embedding of shards of a cell's images, each with the first image's index."""
    execution = request.machine.execution
    arithmetic = request.machine.arithmetic_for(request.grid.dtype)
    with on_device(request.machine.runner, request.machine.device):
        return [
            named(embed_images, f"features {_shard(request, cell, start)}").submit(
                shard, inputs.extractor, execution, arithmetic
            )
            for start, shard in shards
        ]


def _shard(request: GridRequest, cell: GridCell, start: int) -> str:
    """A shard's name for people."""
    return f"{cell.label} shard {start // request.grid.shard_size}"


def submit_score(
    request: GridRequest,
    inputs: GridInputs,
    cell: GridCell,
    shards: list[Any],
    features: list[Any],
) -> CellFutures:
    """Submits a cell's score, and what its classes score where it has classes."""
    classes, n_classes, real = None, inputs.checkpoint.n_classes, inputs.reference_images
    if n_classes and n_classes in (inputs.extractor.n_classes, real.n_classes):
        with on_device(request.machine.runner, request.machine.device):
            classes = named(judge_classes, f"classes {cell.label}").submit(
                shards, features, inputs.extractor, inputs.reference, real, n_classes,
                request.machine.execution,
            )  # fmt: skip
    how = request.scored_by(request.grid.n_images)
    with on_device(request.machine.runner, how[0].device):
        score = named(score_cell, f"score {cell.label}").submit(
            features, inputs.reference, inputs.extractor, *how
        )
    judged = _submit_judged(request, inputs, cell, shards)
    return CellFutures(cell, shards, features, classes, score, judged)


def _submit_judged(
    request: GridRequest, inputs: GridInputs, cell: GridCell, shards: list[Any]
) -> dict[str, list[Any]]:
    """Submits the judging of a cell's shards by every score of images."""
    starts = [start for start, _ in request.shards()]
    with on_device(request.machine.runner, request.machine.device):
        return {
            score.column: [
                named(judge_images, f"{score.column} {_shard(request, cell, start)}").submit(
                    shard, score, inputs.texts if score.needs_prompts else None, start,
                    request.machine.execution,
                )
                for start, shard in zip(starts, shards, strict=True)
            ]
            for score in inputs.image_scores
        }  # fmt: skip


def landed_row(request: GridRequest, inputs: GridInputs, futures: CellFutures) -> CellRow:
    """Puts together the row of a cell all of whose tasks completed."""
    shards = [shard.result() for shard in futures.shards]
    classes = futures.classes.result() if futures.classes else ClassScores()
    protocol, scored = protocol_of(request, inputs), futures.score.result()
    judged = {
        column: named(mean_of_images, f"{column} {futures.cell.label}")(
            [shard.result() for shard in values], inputs.n_prompts, scored.score.group_sizes or []
        )
        for column, values in futures.judged.items()
    }
    return row_of(
        futures.cell, inputs.checkpoint, protocol, scored, classes, shards, inputs.loras, judged,
        inputs.floor,
    )  # fmt: skip


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
        n = 0 if checkpoint.is_latent or checkpoint.pipeline else USUALLY_TRACED
    n = min(n, request.grid.n_images, request.grid.shard_size)
    own = scheduler_of(checkpoint.ref)
    with_x0 = [i for i, of in enumerate(landed) if n and not why_none(of.cell, own)]
    execution, found = request.machine.execution, list[Trajectories | None]([None] * len(landed))
    size = drawn_together(checkpoint.resolution, max(n, 1), execution.device)
    groups = [with_x0[i : i + size] for i in range(0, len(with_x0), size)]
    labels = [", ".join(landed[i].cell.label for i in group) for group in groups]
    with on_device(request.machine.runner, request.machine.device):
        futures = [
            named(draw_trajectories, f"x0 {label if len(group) == 1 else f'of {len(group)} cells'}")
            .submit([landed[i].cell for i in group], checkpoint.ref, n, execution)
            for group, label in zip(groups, labels, strict=True)
        ]  # fmt: skip
    failed = []
    for group, label, future in zip(groups, labels, futures, strict=True):
        future.wait()
        if future.state.is_completed():
            for i, one in zip(group, future.result().of, strict=True):
                found[i] = one
        else:
            failed.append(f"no x0 of {label} on the page: {future.state.message}")
    return found, failed


def protocol_of(request: GridRequest, inputs: GridInputs) -> GridProtocol:
    """What a score has to be compared at, and what people call it."""
    names = [dataset_name(request.real.dataset), request.real.spec.label]
    return GridProtocol(
        extractor=inputs.extractor,
        images=inputs.reference_images,
        features=inputs.reference,
        dataset=", ".join(filter(None, names)),
        split=request.real.split,
        n_images=request.grid.n_images,
        shard_size=request.grid.shard_size,
        image_scores=inputs.image_scores,
    )
