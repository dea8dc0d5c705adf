"""Finds where a few-step sampler should ask a checkpoint's network, and proves it by the grid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger

from ddim_core.decisions.row import CellRow
from ddim_core.samplers.catalogue import OWN
from flows.fid_grid import fid_grid
from flows.grid.outcome import GridOutcome
from flows.requests.flat import command_line, flat, values
from flows.requests.samplers.guidance import guidance_text, together
from flows.requests.tuning import AS_EULER, DDIM, TuneRequest
from flows.run import waiting
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE, task_runner
from flows.tuning.inputs import TuneInputs, prepare_tuning
from flows.tuning.search import long_runs, search
from tasks.checkpoints.identity import mark_scored, weights_of
from tasks.images.prepare import content_of
from tasks.reports.page import asked_by, found_at
from tasks.reports.tuning import publish_tuning, render_tuning
from tasks.sampling.guidance import noise_levels
from tasks.storage.cell_rows import read_rows
from tasks.storage.store import check_writable
from tasks.tracking.address import why_not_logged
from tasks.tuning.asked import without_own_twice
from tasks.tuning.found import LongRun, Tuned
from tasks.tuning.track import track_tuning


@dataclass(frozen=True)
class TuneOutcome:
    """What came of tuning.

    Attributes:
        report: Its place.
        samplers: With their lists, and their guidance where there are several, as a grid is asked
            for them.
        settings: What was found of each: distances, search, what speaks against it.
        reading: Sentences on what tuning bought, and what speaks against it.
        grid: The proof; None if it was left out.
    """

    report: str
    samplers: tuple[str, ...]
    settings: tuple[Tuned, ...]
    reading: tuple[str, ...]
    grid: GridOutcome | None


@flow(
    name="tune",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def tune(request: TuneRequest) -> TuneOutcome:
    """Finds the timesteps of few-step samplers by the checkpoint's own long run; the grid proves.

    Raises:
        ValueError: If the request cannot be, or the checkpoint cannot be tuned so.
        CellsFailedError: If cells of the proof failed.
    """
    check_writable()
    with task_runner(request.machine.runner, request.machine.workers, request.machine.device):
        return _run(request)


def _run(request: TuneRequest) -> TuneOutcome:
    inputs = prepare_tuning(request)
    for note in inputs.notes:
        _say(note)
    targets = long_runs(request, inputs)
    _say_budget(request, inputs, list(targets.values()))
    tuned = search(request, inputs, targets)
    for one in tuned:
        judged = one.judged
        what = "FID {:.3g} on fresh images" if one.by_fid else (
            "{:.3g} from the end of the long run on fresh images"
        )  # fmt: skip
        beside = f", the long run {one.long.mean:.3g}" if one.long else ""
        _say(
            f"{one.sampler} (guidance {_guidance(one)}): {what.format(judged.tuned.mean)}, "
            f"{one.stock} {judged.stock.mean:.3g}{beside}"
        )
        for warning in one.warnings:
            _say(f"{one.sampler}: {warning}")
    grid = _proof(request, inputs, tuned) if request.proof.n_images else None
    rows = read_rows(grid.cells).rows if grid else []
    return _report(request, inputs, tuned, rows, grid)


def _say_budget(request: TuneRequest, inputs: TuneInputs, targets: Sequence[LongRun]) -> None:
    """What the search may cost, before it begins."""
    for target in targets:
        still = "" if target.settled else ", which is not little: see the report"
        _say(
            f"long run: {target.sampler}, {target.steps} steps; half of them end "
            f"{target.moved:.3g} elsewhere{still}"
        )
    n = inputs.n_images * request.tune.budget * len(inputs.settings)
    each = sum(t.seconds for t in targets) / max(1, sum(t.calls for t in targets))
    _say(
        f"search: at most {request.tune.budget} network calls an image for each of "
        f"{len(inputs.settings)} settings, {n:,} image calls; here at most {n * each:,.0f} seconds "
        "of one core"
    )


def _proof(request: TuneRequest, inputs: TuneInputs, tuned: Sequence[Tuned]) -> GridOutcome:
    """Scores what was found beside stock samplers, on the same noise; where levels of guidance were
    found, the lists for guidance at all of them too."""
    names = dict.fromkeys(_settings(request, tuned))
    names |= dict.fromkeys(
        together(one.narrowed.everywhere, one.guidance)
        for one in tuned
        if one.narrowed and one.narrowed.interval
    )
    stock = [DDIM if inputs.checkpoint.is_native else OWN]  # as of a grid
    stock += [
        DDIM if DDIM in request.tune.samplers and one.stock in ("euler", AS_EULER) else one.stock
        for one in tuned
    ]
    each = without_own_twice(stock, inputs.settings[0][0], inputs.checkpoint.ref)
    grid = request.grid(tuple(names), each, inputs.scored_prompts)
    outcome: GridOutcome = fid_grid(**values(grid))
    return outcome


def _guidance(one: Tuned) -> str:
    """Its scale, with the noise levels that were found for it."""
    return guidance_text(one.guidance, (one.narrowed and one.narrowed.interval) or ())


def _settings(request: TuneRequest, tuned: Sequence[Tuned]) -> tuple[str, ...]:
    """The samplers with their lists, each at the guidance that it was tuned at; that is left out
    where it is the grid's only one."""
    scales = {guidance_text(scale, ()) for scale in request.tune.guidance}
    guided = [_guidance(one) for one in tuned]
    if len({*scales, *guided}) == 1:
        return tuple(one.sampler for one in tuned)
    return tuple(together(one.sampler, at) for one, at in zip(tuned, guided, strict=True))


def _report(
    request: TuneRequest,
    inputs: TuneInputs,
    tuned: list[Tuned],
    rows: list[CellRow],
    grid: GridOutcome | None,
) -> TuneOutcome:
    looked_at = {known.sampler for one in tuned for known in one.known}
    ignored = [text for text in inputs.known if text not in looked_at]
    notes = [
        *inputs.notes,
        *(f"{text} is of no sampler and number of calls that was tuned, or lies where the network "
          "was not trained: it was not looked at." for text in ignored),
    ]  # fmt: skip
    of = inputs.checkpoint
    rendered = render_tuning(
        tuned, rows, of.name, of.weights_digest, notes, request.proof.margin,
        noise_levels(inputs.settings[0][0], of.ref, tuned[0].noisiest),
    )  # fmt: skip
    report = asked_by(rendered, command_line("tune", request, request.machine.undeciding))
    place = publish_tuning(report, tuned)
    for sentence in report.reading:
        _say(sentence)
    proof = Path(grid.report).parent.name if grid and grid.report else ""
    told = found_at(report, place)
    tracked = track_tuning(tuned, of.name, of.weights_digest, proof, told, return_state=True)
    if not tracked.is_completed():
        _say(f"{why_not_logged()}, the tuning is not logged: {tracked.message}")
    content = content_of(request.real.dataset)
    weights = weights_of(inputs.checkpoint.ref)
    mark_scored(request.identity(content), weights, grid.cells if grid else [])
    samplers = _settings(request, tuned)
    return TuneOutcome(place, samplers, tuple(tuned), tuple(report.reading), grid)


def _say(line: str) -> None:
    """Puts a line into the run's log and, under the CLI, into the terminal."""
    get_run_logger().info(line)
    if os.environ.get("DDIM_TERMINAL"):
        waiting.say(line)
