"""A grid whose images go to the cells whose rank is still open, until the best is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefect import flow

from ddim_core.common.digest import digest
from ddim_core.decisions.measure import FID
from ddim_core.decisions.race import Rules, allocate
from ddim_core.decisions.row import CellRow
from flows.grid.cells import (
    CellFutures,
    CellsFailedError,
    landed_row,
    submit_features,
    submit_images,
    submit_score,
)
from flows.grid.inputs import GridInputs, prepare
from flows.grid.outcome import GridOutcome
from flows.grid.progress import GridProgress
from flows.requests.flat import command_line, flat
from flows.requests.grid import GridRequest
from flows.requests.race import RaceChoice, RaceRequest, first_images, usual_budget
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE, task_runner
from tasks.cells.settings import calls_of
from tasks.reports.page import asked_by, found_at
from tasks.reports.race import publish_allocation, render_allocation
from tasks.storage.cell_rows import write_row
from tasks.storage.store import check_writable
from tasks.tracking.address import why_not_logged
from tasks.tracking.client import track_grid


@dataclass(frozen=True, kw_only=True)
class RaceOutcome(GridOutcome):
    """What came of a race.

    Attributes:
        reading: Sentences on what was decided, how surely, at what cost.
        decided: Whether the goal is reached.
        leader: The cell with the best value, if one has a score.
        images, images_full: Of the race in all, and of the full grid.
    """

    reading: list[str]
    decided: bool
    leader: str | None
    images: int
    images_full: int


@flow(
    name="until-decided",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def until_decided(asked: RaceRequest) -> RaceOutcome:
    """Finds the best cell of a grid, or its Pareto front, with as few images as that takes.

    All cells get a first round of images; then only those whose rank is open get more, until it
    is decided, each has `n_images`, or the budget is spent. See `ddim_core.decisions.race`.

    Raises:
        ValueError: If the request cannot be; nothing has been sampled then.
        CellsFailedError: If cells failed; the others have their rows and are in the report.
    """
    check_writable()
    with task_runner(asked.machine.runner, asked.machine.workers, asked.machine.device):
        command = command_line("grid --until-decided", asked, asked.machine.undeciding)
        return _run(asked.whole, asked.race, command)


def _run(request: GridRequest, how: RaceChoice, command: str) -> RaceOutcome:
    inputs = prepare(request)
    k = len(inputs.cells)
    first = first_images(inputs.reference.d, request.grid.shard_size, request.grid.n_images)
    most, shard_size = request.grid.n_images, request.grid.shard_size
    budget = how.budget or usual_budget(k, first, most)
    rules = Rules(how.goal, how.confidence, budget, first, most, shard_size)
    with GridProgress(inputs.cells, request.grid.n_images) as progress:
        race = Race(request, [inputs], progress)
        measure = request.verdict.measure
        outcome = allocate(race.nfe, race.score, rules, measure)
        rows = [race.rows[i] for i in sorted(race.rows)]
        for row in rows:
            write_row(row)
        if not rows:
            raise CellsFailedError(f"every cell failed: {'; '.join(race.failures.values())}")
        report = asked_by(
            render_allocation(rows, sorted(race.rows), outcome, rules, inputs.floor), command
        )
        by = [] if measure == FID else [measure.name]  # as before there were others
        name = digest([row.cell_digest for row in rows], vars(rules), *by)
        place = publish_allocation(name, report, rows)
        for sentence in report.reading:
            progress.say(sentence)
        told = found_at(report, place)
        tracked = track_grid(name, rows, told, not race.failures, measure.name, return_state=True)
        if not tracked.is_completed():
            progress.say(f"{why_not_logged()}, nothing is logged: {tracked.message}")
    if race.failures:
        failed = "; ".join(race.failures.values())
        raise CellsFailedError(
            f"{len(race.failures)} of {len(inputs.cells)} cells failed: {failed}"
        )
    return RaceOutcome(
        report=place,
        reading=report.reading,
        decided=outcome.decided,
        leader=None if outcome.leader is None else inputs.cells[outcome.leader].label,
        cells=[row.cell_digest for row in rows],
        images=outcome.images,
        images_full=outcome.images_full,
        images_drawn=progress.images_drawn,
    )


class Race:
    """The images and features so far of the cells of one or more checkpoints; extended, never
    drawn again.

    Attributes:
        cells: All cells, checkpoint by checkpoint.
        of: The place of each one's checkpoint.
        looks: The rows of each call of `score`, by place of the cell.
        rows: The newest row of each cell that has one, by place.
        failures: What failed, by place.
    """

    def __init__(
        self, request: GridRequest, inputs: Sequence[GridInputs], progress: GridProgress
    ) -> None:
        self.request, self.inputs, self.progress = request, inputs, progress
        self.cells = [cell for shared in inputs for cell in shared.cells]
        self.of = [place for place, shared in enumerate(inputs) for _ in shared.cells]
        # Futures by cell and range of images: a range that grew is another one, of which only
        # the new images are drawn.
        self.images: dict[tuple[int, int, int], Any] = {}
        self.features: dict[tuple[int, int, int], Any] = {}
        self.looks: list[dict[int, CellRow]] = []
        self.rows: dict[int, CellRow] = {}
        self.failures: dict[int, str] = {}

    @property
    def nfe(self) -> list[int]:
        """Network calls an image of each cell."""
        shared = [self.inputs[place].checkpoint for place in self.of]
        pairs = zip(self.cells, shared, strict=True)
        return [calls_of(cell, checkpoint.n_train, checkpoint.ref) for cell, checkpoint in pairs]

    def label(self, i: int) -> str:
        """A cell's name, with its checkpoint where there are several."""
        of = f" of {self.inputs[self.of[i]].checkpoint.name}" if len(self.inputs) > 1 else ""
        return f"{self.cells[i].label}{of}"

    def score(self, cells: Sequence[int], n: int) -> dict[int, CellRow]:
        """Extends cells to n images each and scores them; failed cells are missing.

        The costly ones are first, checkpoint by checkpoint: one network at a time is in memory.
        """
        self.progress.say(f"{len(cells)} cells at {n} images each")
        request = self.request.with_images(n)
        costly_first = sorted(cells, key=lambda i: (self.of[i], -self.cells[i].sampler.steps))
        for i in costly_first:
            self._extend(request, i)
        work = {i: self._submit_score(request, i) for i in costly_first}
        landed = {i: self._landed(request, i, work[i]) for i in cells}
        self.looks.append({i: row for i, row in landed.items() if row is not None})
        return self.looks[-1]

    def _extend(self, request: GridRequest, i: int) -> None:
        inputs, cell = self.inputs[self.of[i]], self.cells[i]
        new = [place for place in request.shards() if (i, *place) not in self.images]
        for place, future in zip(new, submit_images(request, inputs, cell, new), strict=True):
            future.add_done_callback(partial(self.progress.shard_done, cell))
            self.images[i, *place] = future

    def _submit_score(self, request: GridRequest, i: int) -> CellFutures:
        inputs, cell = self.inputs[self.of[i]], self.cells[i]
        places = [(i, *place) for place in request.shards()]
        new = [place for place in places if place not in self.features]
        shards = [(start, self.images[i, start, stop]) for _, start, stop in new]
        submitted = submit_features(request, inputs, cell, shards)
        self.features |= dict(zip(new, submitted, strict=True))
        shards, features = ([of[place] for place in places] for of in (self.images, self.features))
        return submit_score(request, inputs, cell, shards, features)

    def _landed(self, request: GridRequest, i: int, work: CellFutures) -> CellRow | None:
        if not work.wait():
            self.failures[i] = f"{self.label(i)} ({work.reason})"
            self.progress.say(f"failed: {self.failures[i]}")
            return None
        try:
            self.rows[i] = landed_row(request, self.inputs[self.of[i]], work)
        except ValueError as error:  # a cell of two batches is none
            self.failures[i] = f"{self.label(i)} ({error})"
            return None
        return self.rows[i]
