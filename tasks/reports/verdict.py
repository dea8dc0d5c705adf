"""Verdicts out of rows: who is compared with whom, the rows of a verdict, and its page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ddim_core.common.columns import Moment
from ddim_core.common.digest import digest
from ddim_core.decisions.checkpoints.verdict import (
    PROTOCOL,
    SETTING,
    CellVerdict,
    Verdict,
    one_row_a_cell,
    pareto,
    setting_of,
)
from ddim_core.decisions.measure import FID
from ddim_core.decisions.row import CellRow, sampler_of
from ddim_core.reports.verdicts.sentences import best_of, first_scored
from tasks.reports.records import ComparedPair
from tasks.storage import places
from tasks.storage.cell_rows import read_rows
from tasks.storage.columns import columns_of, schema_of
from tasks.storage.row_files import write_sealed


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """A cell of a verdict; of an identical checkpoint there is one row, without a cell."""

    verdict_digest: str
    verdict: str
    checkpoint: str
    weights_digest: str
    training_step: int | None
    against: str
    against_weights_digest: str
    against_training_step: int | None
    cell_digest: str | None = None
    against_cell_digest: str | None = None
    sampler: str | None = None
    steps: int | None = None
    eta: float | None = None
    variance: str | None = None
    spacing: str | None = None
    clip: bool | None = None
    guidance_scale: float | None = None
    guidance_interval: str | None = None
    guidance_channels: int | None = None
    guide: str | None = None
    guide_digest: str | None = None
    loras: str | None = None
    extractor_digest: str | None = None
    reference_digest: str | None = None
    n_images: int | None = None
    seed: int | None = None
    nfe: int | None = None
    decide_by: str | None = None
    score: float | None = None
    score_against: float | None = None
    fid: float | None = None
    fid_against: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    p_corrected: float | None = None
    call: str | None = None
    operating_point: bool | None = None
    best: bool | None = None
    tied_with_best: bool | None = None
    on_pareto_front: bool | None = None
    level: float
    margin: float
    twins: list[str] | None = None
    training_sd: float | None = None
    training_sd_low: float | None = None
    training_sd_high: float | None = None
    training_reach: float | None = None
    created_at: Moment


SCHEMA = schema_of(columns_of(VerdictRow))


def history(
    rows: Sequence[CellRow], told_as: Callable[[list[CellRow]], list[CellRow]] = list
) -> tuple[list[CellRow], tuple[str, ...], tuple[str, ...]]:
    """Returns all rows of the table that are comparable with a checkpoint's rows (the same cells by
    the same protocol, of any checkpoint), a sentence for each row that is damaged, and what is to
    be said of all of them.

    Args:
        rows: The checkpoint's.
        told_as: What the table's rows are told as: rows of LoRA files, where `rows` are.
    """
    wanted = set(map(setting_of, rows))
    found = read_rows(alike={name: getattr(rows[0], name) for name in PROTOCOL})
    alike = [row for row in told_as(found.rows) if setting_of(row) in wanted]
    return one_row_a_cell(alike, rows[0].device), found.damaged, found.remarks


def previous(rows: Sequence[CellRow], comparable: Sequence[CellRow]) -> list[CellRow]:
    """Returns the rows of the checkpoint that was scored last before this one, with all its cells;
    empty if there is none."""
    ours, since = rows[0].weights_digest, _instant(first_scored(rows))
    others: dict[str, list[CellRow]] = {}
    for row in comparable:
        if row.weights_digest not in (ours, None):
            others.setdefault(row.weights_digest, []).append(row)
    cells = set(map(setting_of, rows))
    whole = [theirs for theirs in others.values() if set(map(setting_of, theirs)) >= cells]
    older = [theirs for theirs in whole if _instant(first_scored(theirs)) < since]
    return max(older, key=lambda theirs: _instant(first_scored(theirs)), default=[])


def about_pair(rows: Sequence[CellRow], against: Sequence[CellRow], name: str = "") -> ComparedPair:
    """Names two checkpoints by their rows; `name` is another name for the older one."""
    new, old = rows[0], against[0]
    return ComparedPair(
        new.checkpoint, new.weights_digest, new.training_step,
        name or old.checkpoint, old.weights_digest, old.training_step,
    )  # fmt: skip


def about_one(checkpoint: str, against: str, weights: str) -> ComparedPair:
    """Names two checkpoints that are one by content."""
    return ComparedPair(checkpoint, weights, None, against, weights, None)


def verdict_digest(about: ComparedPair, verdict: Verdict) -> str:
    """Returns the identity of a verdict: both weights, the cells, and how it was judged."""
    cells = [[c.new.cell_digest, c.baseline.cell_digest] for c in verdict.cells]
    point = verdict.point.name if verdict.point else ""
    both = about.weights_digest, about.against_weights_digest
    by = [] if verdict.measure == FID else [verdict.measure.name]  # as before there were others
    noises = [repr(cell.noise) for cell in verdict.cells]
    twins = [[verdict.twins, noises]] if verdict.twins else []
    return digest(both, sorted(cells), point, verdict.level, verdict.margin, *by, *twins)


def write_verdict(about: ComparedPair, verdict: Verdict, rows: Sequence[CellRow]) -> str:
    """Writes a verdict, a line for each cell, whole or not at all; returns its digest.

    Args:
        about: Both checkpoints.
        verdict: What was found; an identical checkpoint has one line and no cell.
        rows: The new checkpoint's rows.
    """
    identity = verdict_digest(about, verdict)
    shared = VerdictRow(
        verdict_digest=identity, verdict=verdict.call, level=verdict.level,
        margin=verdict.margin, twins=list(verdict.twins) or None,
        created_at=datetime.now(UTC).isoformat(), **vars(about),
    )  # fmt: skip
    lines = [_line(shared, cell, verdict, rows) for cell in verdict.cells] or [shared]
    place = places.data_url("results", "verdicts", f"{identity}.parquet")
    write_sealed(place, list(map(vars, lines)), SCHEMA)
    return identity


def _line(
    shared: VerdictRow, cell: CellVerdict, verdict: Verdict, rows: Sequence[CellRow]
) -> VerdictRow:
    measure = verdict.measure
    best = best_of(rows, measure)
    front = [row.cell_digest for row in pareto(rows, measure)]
    new, own, noise = cell.new, cell.new.cell_digest, cell.noise
    return replace(
        shared,
        cell_digest=own,
        against_cell_digest=cell.baseline.cell_digest,
        sampler=sampler_of(new),
        **{name: getattr(new, name) for name in SETTING},
        extractor_digest=new.extractor_digest,
        reference_digest=new.reference_digest,
        n_images=new.n_images,
        seed=new.seed,
        nfe=new.nfe,
        decide_by=measure.name,
        score=measure.value(new),
        score_against=measure.value(cell.baseline),
        fid=new.fid,
        fid_against=cell.baseline.fid,
        difference=cell.difference,
        difference_low=cell.low,
        difference_high=cell.high,
        p_value=cell.p_value,
        p_corrected=cell.p_corrected,
        call=cell.call,
        operating_point=verdict.point is not None and own == verdict.point.new.cell_digest,
        best=own == best.best.cell_digest,
        tied_with_best=own in [row.cell_digest for row in (best.best, *best.ties)],
        on_pareto_front=own in front,
        training_sd=noise.sd if noise else None,
        training_sd_low=noise.low if noise else None,
        training_sd_high=noise.high if noise else None,
        training_reach=cell.reach,
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
