"""What a grid does beside scoring: compare its checkpoint with another one, and say so.

The other one, the baseline, is the one scored before by the same protocol, or one that was named:
its grid is then run first, from the cache where it has been.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from prefect.logging import get_run_logger

from ddim_core.decisions.checkpoints.lora_rows import rows_of_lora, rows_of_loras
from ddim_core.decisions.checkpoints.twins import (
    beyond_training_noise,
    require_trainings,
    rows_like,
)
from ddim_core.decisions.checkpoints.verdict import IDENTICAL, judge
from ddim_core.decisions.row import CellRow
from flows.grid.named import local_checkpoint, twins_called
from flows.grid.outcome import GridOutcome
from flows.requests.flat import command_line, values
from flows.requests.grid import GridRequest
from flows.requests.images import NONE, PREVIOUS
from tasks.checkpoints.identity import weights_of
from tasks.checkpoints.loras import split_lora, store_lora
from tasks.checkpoints.open import import_checkpoint
from tasks.reports.page import grid_folder
from tasks.reports.records import FiledVerdict
from tasks.reports.verdict import about_one, about_pair, history, previous
from tasks.reports.verdict_page import publish_verdict
from tasks.storage.cell_rows import read_rows, read_table
from tasks.storage.row_files import DamagedRowError
from tasks.tracking.models import champion, resolved

Rows = list[CellRow]


@dataclass(frozen=True)
class Baseline:
    """The checkpoint that a new one is compared with.

    Attributes:
        name: For people.
        rows: Its scored grid.
        outcome: Of the whole flow, where both checkpoints are the same and nothing is left to do.
        lora: Digest of the LoRA file that is the baseline on the same checkpoint; else empty.
    """

    name: str
    rows: Rows
    outcome: GridOutcome | None = None
    lora: str = ""


def settle_baseline(request: GridRequest, run: Callable[..., GridOutcome]) -> Baseline | None:
    """Finds the baseline that was named and scores it by the same grid; None if none was named.

    Args:
        request: The grid that was asked for.
        run: The flow that scores a grid.

    Raises:
        ValueError: If the baseline or a twin is nowhere, or the twins are no trainings of one
            recipe.
    """
    _require_twins(request)
    named = _named(request)
    if named is None:
        return None
    if is_lora(named):
        return _lora_baseline(request, named, run)
    folder = local_checkpoint(named)
    name = folder.name if folder.name == Path(named).name else resolved(named)
    described = request.model.configuration if folder.is_file() else ""
    weights = weights_of(import_checkpoint(str(folder), configuration=described))
    own = request.model.checkpoint
    if own and weights == weights_of(
        import_checkpoint(own, configuration=request.model.configuration)
    ):
        get_run_logger().info("identical to %s by content: nothing is sampled", name)
        return Baseline(name, [], _identical(Path(own).resolve().name, name, weights))
    theirs = {"checkpoint": str(folder), "configuration": described}
    other = {**theirs, "against": NONE, "gate": False, "promote": "", "at": "", "twins": ()}
    scored = run(**values(request) | other)
    return Baseline(name, read_table(scored.cells))


def _require_twins(request: GridRequest) -> None:
    """Refuses twins that cannot serve before anything is drawn."""
    twins = request.verdict.twins
    if twins and (request.verdict.against == NONE or request.model.lora):
        raise ValueError(
            f"twins are {', '.join(twins)}; in a grid they need another checkpoint to be compared "
            "with, and no lora (`ddim verdict --twins` takes LoRAs)"
        )
    if twins:
        require_trainings(twins_called(twins, read_rows().rows))


def is_lora(place: str) -> bool:
    """Tells a LoRA's file, such as another epoch of the one that a grid lays over its pipeline."""
    try:
        store_lora(place)
    except ValueError:
        return False
    return True


def _lora_baseline(
    request: GridRequest, named: str, run: Callable[..., GridOutcome]
) -> Baseline | None:
    """Scores the same grid with another LoRA in place of the one that is named first."""
    if not request.model.lora:
        raise ValueError(f"against is {named!r}, a LoRA, and the grid has none (--lora)")
    first, *others = request.model.lora
    stored, own = store_lora(named), store_lora(first)
    if stored.artifact == own.artifact:
        return Baseline(stored.name, [], _identical(own.name, stored.name, own.artifact))
    scale = first.removeprefix(split_lora(first)[0])
    laid = [f"{split_lora(named)[0]}{scale}", *others]
    other = {"lora": laid, "against": NONE, "gate": False, "promote": "", "at": "", "twins": ()}
    scored = run(**values(request) | other)
    return Baseline(stored.name, read_table(scored.cells), lora=stored.artifact)


def judge_grid(
    request: GridRequest, rows: Rows, baseline: Baseline | None
) -> tuple[FiledVerdict | None, tuple[str, ...]]:
    """Compares a finished grid with its baseline and publishes the verdict.

    Returns:
        The verdict, None without a baseline, and a sentence for each damaged row of the table.
    """
    folder = grid_folder(row.cell_digest for row in rows)
    rows = read_table([row.cell_digest for row in rows])
    if request.model.lora and (baseline is None or baseline.lora):
        judged, damaged = _judged_as_loras(request, rows, baseline, folder)
        if judged or baseline:
            return judged, damaged
    comparable, damaged, remarks = _comparable(request, rows, baseline)
    return _judged(request, rows, baseline, comparable, remarks, folder), damaged


def _judged_as_loras(
    request: GridRequest, rows: Rows, baseline: Baseline | None, folder: str
) -> tuple[FiledVerdict | None, tuple[str, ...]]:
    """Compares the LoRA that is named first with another one on the same base, if there is one."""
    lora = store_lora(request.model.lora[0]).artifact
    ours, base = rows_of_lora(rows, lora), rows[0].weights_digest
    if not ours or request.verdict.against == NONE:
        return None, ()
    told_as = partial(rows_of_loras, base=base)
    comparable, damaged, remarks = _comparable(request, ours, baseline, told_as)
    if baseline:
        theirs = rows_of_lora(baseline.rows, baseline.lora)
        baseline = replace(baseline, name=theirs[0].checkpoint if theirs else "", rows=theirs)
    elif not previous(ours, comparable):
        return None, damaged
    return _judged(request, ours, baseline, comparable, remarks, folder), damaged


def _judged(
    request: GridRequest,
    rows: Rows,
    baseline: Baseline | None,
    comparable: Rows,
    remarks: tuple[str, ...],
    folder: str,
) -> FiledVerdict | None:
    old = baseline.rows if baseline else []
    if not baseline and request.verdict.against == PREVIOUS:
        old = previous(rows, comparable)
    if not old:
        if request.verdict.gate:
            get_run_logger().warning("no other checkpoint was scored before: the gate is open")
        return None
    try:
        asked = request.verdict
        verdict = judge(rows, old, asked.at, margin=asked.margin, measure=asked.measure)
        if asked.twins:
            twins = twins_called(asked.twins, read_rows().rows)
            verdict = beyond_training_noise(verdict, [rows_like(twin, rows[0]) for twin in twins])
    except ValueError as error:
        if request.verdict.gate:
            raise
        get_run_logger().warning("no verdict: %s", error)
        return None
    about = about_pair(rows, old, baseline.name if baseline else "")
    given = bool(request.verdict.at)
    command = command_line("grid", request, request.machine.undeciding)
    return publish_verdict(about, verdict, rows, comparable, given, remarks, folder, command)


def _comparable(
    request: GridRequest,
    rows: Rows,
    baseline: Baseline | None,
    told_as: Callable[[Rows], Rows] = list,
) -> tuple[Rows, tuple[str, ...], tuple[str, ...]]:
    """What the table has to compare with, without the rows that are damaged, these, and what is to
    be said of all. A gate whose baseline may be one of them stays shut."""
    comparable, damaged, remarks = history(rows, told_as)
    if damaged and request.verdict.gate and baseline is None:
        raise DamagedRowError("; ".join(damaged))
    for sentence in damaged:
        get_run_logger().warning("%s", sentence)
    return comparable, damaged, remarks


def _named(request: GridRequest) -> str | None:
    """The baseline's location, if one was named; with a model to promote in, its champion."""
    if request.verdict.against == PREVIOUS:
        return champion(request.verdict.promote) if request.verdict.promote else None
    return None if request.verdict.against == NONE else request.verdict.against


def _identical(name: str, against: str, weights: str) -> GridOutcome:
    """Publishes that a checkpoint is the same as another; returns what a grid would."""
    verdict = publish_verdict(about_one(name, against, weights), IDENTICAL, [], [])
    return GridOutcome(report=verdict.page, cells=[], images_drawn=0, verdict=verdict)
