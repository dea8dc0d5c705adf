"""The main flow: a table of Frechet distances with intervals over (S, eta), for one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from os import cpu_count
from typing import Any

from prefect import flow
from prefect.futures import as_completed

from ddim_core.common.digest import digest
from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import GridCell
from ddim_core.reports.grid_sentences import read_best
from flows.grid.baseline import judge_grid, settle_baseline
from flows.grid.cells import (
    CellFutures,
    CellsFailedError,
    landed_row,
    predicted,
    protocol_of,
    submit_features,
    submit_images,
    submit_score,
)
from flows.grid.gate import conclude
from flows.grid.inputs import GridInputs, prepare
from flows.grid.matrix import best_cell_matrix
from flows.grid.outcome import GridOutcome
from flows.grid.progress import GridProgress
from flows.requests.flat import command_line, flat
from flows.requests.grid import GridRequest
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE, task_runner
from tasks.cells.table import cell_digest
from tasks.reports.grid import AboutGrid, publish_report, render_report
from tasks.reports.page import asked_by, found_at
from tasks.reports.records import FiledVerdict
from tasks.storage.cell_rows import write_row
from tasks.storage.store import StoreError, check_writable
from tasks.tracking.address import why_not_logged
from tasks.tracking.cells import cells_logged_early
from tasks.tracking.client import track_grid


@flow(
    name="fid-grid",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def fid_grid(request: GridRequest) -> GridOutcome:
    """Scores every cell (S, eta, sampler) of a grid on one checkpoint; cached by content and code.

    Raises:
        ValueError: If the request cannot be; nothing has been computed then.
        CellsFailedError: If cells failed; the others have their rows and are in the report.
        RegressionError: If a gate was asked for and the checkpoint is proven worse.
    """
    check_writable()
    with task_runner(request.machine.runner, request.machine.workers, request.machine.device):
        return _run(request)


def _run(request: GridRequest) -> GridOutcome:
    baseline = settle_baseline(request, fid_grid)
    if baseline and baseline.outcome:
        return baseline.outcome
    inputs = prepare(request)
    work = _submit(request, inputs)
    with GridProgress(inputs.cells, request.grid.n_images) as progress:
        for finding in inputs.findings:
            progress.logger.info("schedule: %s", finding)
        with cells_logged_early(_identity(request, inputs)) as log:
            rows, failures = _collect(request, inputs, work, progress, log)
        verdict: FiledVerdict | None = None
        damaged: tuple[str, ...] = ()
        if rows:
            request.verdict.measure.has_intervals(rows)  # refuses rows without what decides
        if rows and not failures:
            verdict, damaged = judge_grid(request, rows, baseline)
        place, advice = (
            _report(request, inputs, work, rows, verdict, progress) if rows else (None, ())
        )
    if failures:
        raise CellsFailedError(
            f"{len(failures)} of {len(work)} cells failed"
            + (", the others have their rows: " if rows else ": ")
            + "; ".join(failures),
            [row.cell_digest for row in rows],
        )
    conclude(request, rows, inputs.checkpoint, verdict)
    return GridOutcome(
        report=place,
        cells=[row.cell_digest for row in rows],
        images_drawn=progress.images_drawn,
        verdict=verdict,
        damaged=damaged,
        advice=advice,
    )


def _submit(request: GridRequest, inputs: GridInputs) -> list[CellFutures]:
    """Submits all work, the costliest cells first so that no long one is left for the end.

    A cell's features queue behind the images of the cells after it, at least a core's worth of
    shards, and its score as far behind its features where these alone are less than that: a worker
    that takes one up finds what it needs, and does not stand waiting.
    """
    cells = sorted(inputs.cells, key=lambda cell: -cell.sampler.steps)
    behind = -(-(cpu_count() or 1) // len(request.shards()))
    score_behind = 2 * behind if behind > 1 else behind
    images: dict[GridCell, list[Any]] = {}  # futures, which Prefect resolves in a task's inputs
    features: dict[GridCell, list[Any]] = {}
    work: dict[GridCell, CellFutures] = {}
    for i in range(len(cells) + score_behind):
        for cell in _at(cells, i):
            images[cell] = submit_images(request, inputs, cell, request.shards())
        for cell in _at(cells, i - behind):
            starts = [start for start, _ in request.shards()]
            shards = list(zip(starts, images[cell], strict=True))
            features[cell] = submit_features(request, inputs, cell, shards)
        for cell in _at(cells, i - score_behind):
            work[cell] = submit_score(request, inputs, cell, images[cell], features[cell])
    return [work[cell] for cell in inputs.cells]


def _at(cells: list[GridCell], i: int) -> list[GridCell]:
    """The cell at a place of the queue, if there is one."""
    return cells[i : i + 1] if i >= 0 else []


def _identity(request: GridRequest, inputs: GridInputs) -> str:
    """The digest of all cells of the grid."""
    protocol, ref = protocol_of(request, inputs), inputs.checkpoint.ref
    return digest(sorted(cell_digest(cell, ref, protocol) for cell in inputs.cells))


def _collect(
    request: GridRequest,
    inputs: GridInputs,
    work: list[CellFutures],
    progress: GridProgress,
    log: Callable[[CellRow], None],
) -> tuple[list[CellRow], list[str]]:
    """Writes each cell's row as it lands; returns the rows in grid order, and what failed."""
    by_score = {futures.score: futures for futures in work}
    rows: dict[GridCell, CellRow] = {}
    failures = []
    for futures in work:
        for shard in futures.shards:
            shard.add_done_callback(partial(progress.shard_done, futures.cell))
    for score in as_completed(list(by_score)):
        futures = by_score[score]
        reason = None if futures.wait() else futures.reason
        if reason is None:
            try:
                row = landed_row(request, inputs, futures)
                reason = _unwritten(row)
            except ValueError as error:  # a cell of two batches is none
                reason = str(error)
        if reason is None:
            rows[futures.cell] = row
            log(row)
            progress.cell_landed(row)
        else:
            failures.append(f"{futures.cell.label} ({reason})")
            progress.say(f"failed: {failures[-1]}")
    return [rows[futures.cell] for futures in work if futures.cell in rows], failures


def _unwritten(row: CellRow) -> str | None:
    """Writes a row; says why where it cannot be."""
    try:
        write_row(row)
    except StoreError as error:
        return str(error)
    return None


def _report(
    request: GridRequest,
    inputs: GridInputs,
    work: list[CellFutures],
    rows: list[CellRow],
    verdict: FiledVerdict | None,
    progress: GridProgress,
) -> tuple[str, tuple[str, ...]]:
    """Renders and publishes the report and logs the grid; returns the report's place, and what it
    says of the best cell."""
    grid = _identity(request, inputs)
    protocol, ref = protocol_of(request, inputs), inputs.checkpoint.ref
    in_rows = {row.cell_digest for row in rows}
    landed = [f for f in work if cell_digest(f.cell, ref, protocol) in in_rows]
    about = AboutGrid(
        floor=inputs.floor,
        notes=inputs.notes,
        test_accuracy=inputs.extractor.test_accuracy,
        findings=inputs.findings,
        verdict=verdict,
        matrix=best_cell_matrix(
            request,
            inputs.extractor,
            inputs.reference_images,
            rows,
            [[shard.result() for shard in futures.shards] for futures in landed],
        ),
        decide_by=request.verdict.decide_by,
        margin=request.verdict.margin,
    )
    traced, failed = predicted(request, inputs, landed)
    for sentence in failed:
        progress.say(sentence)
    shards = [futures.shards[0].result() for futures in landed]
    report = asked_by(
        render_report(rows, shards, about, traced),
        command_line("grid", request, request.machine.undeciding),
    )
    place = publish_report(grid, report, rows)
    called = verdict.sentences[:1] if verdict else []
    ranking = about.ranked(rows)
    advice = tuple(read_best(ranking)) if ranking else ()
    for sentence in [*report.reading, *inputs.notes, *called]:
        # What the command prints at its end need not stand in the terminal twice.
        (progress.logger.info if sentence in advice else progress.say)(sentence)
    complete = len(rows) == len(inputs.cells)
    told, by = found_at(report, place), request.verdict.decide_by
    tracked = track_grid(grid, rows, told, complete, by, return_state=True)
    if not tracked.is_completed():
        progress.say(f"{why_not_logged()}, the grid is not logged: {tracked.message}")
    return place, advice
