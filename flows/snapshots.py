"""Several checkpoints, each at its own best setting: which is the best, and at which setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow

from ddim_core.common.digest import digest
from ddim_core.decisions.checkpoints.snapshots import SnapshotRanking, rank_snapshots, stopping
from ddim_core.decisions.measure import Measure
from ddim_core.decisions.race import Outcome, Rules, allocate
from flows.grid.cells import CellsFailedError
from flows.grid.inputs import GridInputs, prepare
from flows.grid.progress import GridProgress
from flows.requests.flat import flat
from flows.requests.race import SnapshotRequest, first_images, usual_budget
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE, task_runner
from flows.until_decided import Race, RaceOutcome
from tasks.checkpoints.addresses import name_of
from tasks.checkpoints.arrivals import snapshots_in
from tasks.checkpoints.open import CheckpointRecord, import_checkpoint, open_checkpoint
from tasks.reports.page import asked_by, found_at
from tasks.reports.race import publish_snapshots, render_snapshots
from tasks.storage.cell_rows import write_row
from tasks.storage.store import check_writable
from tasks.tracking.address import why_not_logged
from tasks.tracking.client import track_grid


@dataclass(frozen=True, kw_only=True)
class SnapshotOutcome(RaceOutcome):
    """What came of several checkpoints.

    Attributes:
        ranking: The snapshots, the cells, and what fixed settings would have picked.
        left_out: What is no checkpoint, or another one's copy, in words.
    """

    ranking: SnapshotRanking
    left_out: list[str]


@flow(
    name="snapshots",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def snapshots(asked: SnapshotRequest) -> SnapshotOutcome:
    """Ranks several checkpoints, each at its own best setting, and says which setting that is.

    The cells of all their grids race together, or each gets `n_images`. A cell's row is that of
    the grid of its checkpoint alone. See `ddim_core.decisions.checkpoints.snapshots`.

    Raises:
        ValueError: If the request cannot be; nothing has been sampled then.
        CellsFailedError: If cells failed; the others have their rows and are in the report.
    """
    check_writable()
    with task_runner(asked.machine.runner, asked.machine.workers, asked.machine.device):
        return _run(asked)


def _run(asked: SnapshotRequest) -> SnapshotOutcome:
    places, left_out = _distinct(asked)
    inputs = [prepare(asked.grid_of(place)) for place in places]
    request, measure = asked.grid_of(places[0]), asked.verdict.measure
    rules = _rules(asked, inputs)
    with GridProgress([c for shared in inputs for c in shared.cells], rules.most) as progress:
        for remark in left_out:
            progress.say(remark)
        race = Race(request, inputs, progress)
        outcome = _scored(asked, race, rules, measure)
        rows = [race.rows[i] for i in sorted(race.rows)]
        for row in rows:
            write_row(row)
        if not rows:
            raise CellsFailedError(f"every cell failed: {'; '.join(race.failures.values())}")
        leader = outcome.leader if outcome else None
        found = rank_snapshots(race.looks, race.of, rules, measure, leader)
        report = asked_by(
            render_snapshots(
                rows, sorted(race.rows), found, outcome, rules, inputs[0].floor, left_out
            ),
            asked.command,
        )
        name = digest([row.cell_digest for row in rows], vars(rules), measure.name)
        place = publish_snapshots(name, report, rows, found)
        for sentence in report.reading[len(left_out) :]:
            progress.say(sentence)
        best_row = next(row for row in rows if row.cell_digest == found.leader)
        told = found_at(report, place)
        tracked = track_grid(
            name, rows, told, not race.failures, found.measure.name, best_row, return_state=True
        )
        if not tracked.is_completed():
            progress.say(f"{why_not_logged()}, nothing is logged: {tracked.message}")
    if race.failures:
        failed = "; ".join(race.failures.values())
        raise CellsFailedError(f"{len(race.failures)} of {len(race.of)} cells failed: {failed}")
    best = found.snapshots[found.best]
    return SnapshotOutcome(
        report=place,
        reading=report.reading,
        decided=found.decided,
        leader=f"{best.setting} of {best.name}",
        cells=[row.cell_digest for row in rows],
        images=sum(row.n_images for row in rows),
        images_full=len(race.of) * rules.most,
        images_drawn=progress.images_drawn,
        ranking=found,
        left_out=left_out,
    )


def _rules(asked: SnapshotRequest, inputs: Sequence[GridInputs]) -> Rules:
    """What ends the race; full grids are one of a single look, at all images."""
    k = sum(len(shared.cells) for shared in inputs)
    most, step = asked.grid.n_images, asked.grid.shard_size
    first = first_images(inputs[0].reference.d, step, most) if asked.until_decided else most
    budget = usual_budget(k, first, most) if asked.until_decided else k * most
    return Rules("best", asked.race.confidence, asked.race.budget or budget, first, most, step)


def _scored(asked: SnapshotRequest, race: Race, rules: Rules, measure: Measure) -> Outcome | None:
    """Has the cells scored; returns what came of the race, if it was one."""
    if asked.until_decided:
        return allocate(race.nfe, race.score, stopping(rules), measure)
    race.score(range(len(race.of)), rules.most)
    return None


def _distinct(asked: SnapshotRequest) -> tuple[list[str], list[str]]:
    """The places of the checkpoints that differ, by training step where all have one, else in the
    order given; and what is left out.

    Raises:
        ValueError: If one cannot be opened (names it), or two do not make images of one size.
    """
    model, left_out = asked.model, []
    found: dict[str, tuple[str, CheckpointRecord]] = {}
    for location in asked.of.checkpoints:
        places, others = snapshots_in(location)
        left_out += others
        for place in places:
            try:
                asked.grid_of(place)
                ref = import_checkpoint(place, model.weights, model.configuration)
                record = open_checkpoint(ref, name_of(place))
            except ValueError as error:
                raise ValueError(f"{name_of(place)} cannot be compared: {error}") from error
            first, _ = found.setdefault(record.weights_digest, (place, record))
            if first != place:
                left_out.append(f"{name_of(place)} is {name_of(first)} by content: scored once")
    _require_alike([record for _, record in found.values()])
    steps = {place: record.training_step for place, record in found.values()}
    if all(step is not None for step in steps.values()):
        return sorted(steps, key=lambda place: steps[place] or 0), left_out
    return list(steps), left_out


def _require_alike(records: Sequence[CheckpointRecord]) -> None:
    first = records[0]
    for other in records[1:]:
        for what in ("resolution", "channels"):
            a, b = getattr(first, what), getattr(other, what)
            if a != b:
                raise ValueError(
                    f"{what} is {a} of {first.name} and {b} of {other.name}; snapshots that are "
                    "compared make images of one size"
                )
