"""The lab's flow: a noise model of points in the plane, and DDIM samples of it over (S, eta)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from ddim_core.common.digest import digest
from ddim_core.decisions.row import cell_name
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec
from ddim_core.points.row import PointRow
from ddim_core.points.score import SeedMean, interval, read_points
from ddim_core.points.specs import PointTrainSpec
from flows.requests.flat import command_line, flat
from flows.requests.models import PointRequest
from flows.run import waiting
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE, task_runner
from tasks.points.model import TrainedPoints, train_point_model
from tasks.points.sample import sample_points, trace_points
from tasks.points.score import score_floor, score_generated
from tasks.points.table import point_row, write_point_row
from tasks.reports.page import asked_by, found_at
from tasks.reports.points import publish_point_report, render_point_report
from tasks.storage.naming import named
from tasks.storage.store import check_writable
from tasks.tracking.address import why_not_logged
from tasks.tracking.client import track_points

FLOOR_PAIRS = 20


class SettingsFailedError(RuntimeError):
    """Some settings have no score; the message names each with its reason."""


@dataclass(frozen=True)
class PointOutcome:
    """The place of the report, and the digests of the rows."""

    report: str | None
    cells: tuple[str, ...]


@dataclass(frozen=True)
class SettingFutures:
    """One sampler setting on one model, at work."""

    training: PointTrainSpec
    model: TrainedPoints
    sampler: SamplerSpec
    samples: list[Any]
    score: PrefectFuture[Any]

    @property
    def label(self) -> str:
        return f"S={self.sampler.steps} eta={self.sampler.eta:g} training seed {self.training.seed}"


@flow(
    name="swiss-roll",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def swiss_roll(request: PointRequest) -> PointOutcome:
    """Trains a noise model of points, samples it with DDIM, and scores the samples.

    Raises:
        ValueError: If the request cannot be; nothing has been computed then.
        SettingsFailedError: If settings failed; the others have their rows and are in the report.
    """
    check_writable()
    with task_runner(request.machine.runner, request.machine.workers):
        return _run(request)


def _run(request: PointRequest) -> PointOutcome:
    for finding in request.findings():
        get_run_logger().info("schedule: %s", finding)
    floor = score_floor(request.dataset, request.n_points, FLOOR_PAIRS)
    execution = Execution(threads=request.machine.threads)
    trained = {spec: train_point_model.submit(spec, execution) for spec in request.trainings()}
    models = {spec: future.result() for spec, future in trained.items()}
    work = [
        _submit(request, training, model, sampler)
        for training, model in models.items()
        for sampler in request.samplers()
    ]
    landed, rows, failures = _collect(request, work, floor)
    place = _report(request, landed, rows) if rows else None
    if failures:
        raise SettingsFailedError(
            f"{len(failures)} of {len(work)} settings failed, the others have their rows: "
            + "; ".join(failures)
        )
    return PointOutcome(place, tuple(row.cell_digest for row in rows))


def _submit(
    request: PointRequest, training: PointTrainSpec, model: TrainedPoints, sampler: SamplerSpec
) -> SettingFutures:
    execution = Execution(threads=request.machine.threads)
    seeds = list(range(request.sampling_seeds))
    samples: list[Any] = [  # futures: Prefect puts their results in their place
        sample_points.submit(
            GridCell(sampler, seed=seed), training, model, request.n_points, execution
        )
        for seed in seeds
    ]
    label = f"score S={sampler.steps} {sampler.line} training seed {training.seed}"
    score = named(score_generated, label).submit(samples, seeds, request.dataset)
    return SettingFutures(training, model, sampler, samples, score)


def _collect(
    request: PointRequest, work: list[SettingFutures], floor: SeedMean
) -> tuple[list[SettingFutures], list[PointRow], list[str]]:
    """Writes each setting's row as it lands; returns what landed, its rows, and what failed."""
    landed, rows, failures = [], [], []
    for futures in work:
        futures.score.wait()
        if not futures.score.state.is_completed():
            failures.append(f"{futures.label} ({_reason(futures)})")
            _say(f"failed: {failures[-1]}")
            continue
        samples = [sample.result() for sample in futures.samples]
        row = point_row(
            futures.training, futures.model, futures.sampler, request.n_points,
            samples, futures.score.result(), floor,
        )  # fmt: skip
        write_point_row(row)
        landed.append(futures)
        rows.append(row)
        score = interval(row.chamfer, row.chamfer_low, row.chamfer_high)
        _say(
            f"{cell_name(row):<20} Chamfer {score}  (floor {row.floor:.2f}; training seed "
            f"{row.training_seed}, {row.n_points} points, {request.sampling_seeds} samples)"
        )
    return landed, rows, failures


def _reason(futures: SettingFutures) -> str:
    """The message of what failed first: sampling, or else the score itself."""
    everything = [*futures.samples, futures.score]
    for future in everything:
        future.wait()
    failed = next(f.state for f in everything if not f.state.is_completed())
    return str(failed.message).removeprefix("Task run encountered an exception ")


def _report(request: PointRequest, landed: list[SettingFutures], rows: list[PointRow]) -> str:
    """Renders and publishes the report and logs the run; returns the report's place."""
    first = landed[0]
    of_first = [futures for futures in landed if futures.training == first.training]
    shown = min(of_first, key=lambda f: (f.sampler.eta, -f.sampler.steps))
    cell = GridCell(shown.sampler)
    trace = trace_points(
        cell,
        first.training,
        first.model,
        request.n_points,
        Execution(threads=request.machine.threads),
    )
    generated = [futures.samples[0].result() for futures in of_first]
    report = asked_by(
        render_point_report(rows, generated, trace, cell, first.training, request.findings()),
        command_line("swiss-roll", request, request.machine.undeciding),
    )
    name = digest(sorted(row.cell_digest for row in rows))
    place = publish_point_report(name, report, rows)
    for sentence in read_points(rows):
        _say(sentence)
    tracked = track_points(name, rows, found_at(report, place), return_state=True)
    if not tracked.is_completed():
        _say(f"{why_not_logged()}, the run is not logged: {tracked.message}")
    return str(place)


def _say(line: str) -> None:
    """Puts a line into the run's log and, under the CLI, into the terminal."""
    get_run_logger().info(line)
    if os.environ.get("DDIM_TERMINAL"):
        waiting.say(line)
