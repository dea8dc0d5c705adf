"""What a comparison of snapshots has shown, in sentences and as a curve over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import get_args

from ddim_core.decisions.checkpoints.snapshots import (
    Behind,
    Call,
    FixedSetting,
    Snapshot,
    SnapshotRanking,
)
from ddim_core.decisions.race import Outcome, Rules
from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.reports.grid_sentences import mixed_clipping
from ddim_core.reports.race_sentences import basis_sentence, cost_sentence
from ddim_core.reports.verdicts.figures import checkpoint_curve

MOST_CURVES = 4  # of fixed settings, beside the curve at each snapshot's best


def read_snapshots(
    rows: Mapping[int, CellRow],
    found: SnapshotRanking,
    rules: Rules,
    outcome: Outcome | None,
    remarks: Sequence[str] = (),
) -> list[str]:
    """Says which snapshot and setting is best, how much worse the others are, what a fixed setting
    would have picked, and what it cost.

    Args:
        rows: The newest row of each cell that has one, by place.
        found: The ranking.
        rules: What was asked for.
        outcome: What came of the race; None of full grids.
        remarks: What was left out.
    """
    raced = [] if outcome is None else [
        cost_sentence(rows, outcome, rules), basis_sentence(found.measure),
    ]  # fmt: skip
    return [
        *remarks, _best(rows, found), *_others(found), _fixed(found), *raced,
        *mixed_clipping(rows.values()),
    ]  # fmt: skip


def worse_text(found: SnapshotRanking, one: Behind) -> str:
    """How much worse than the best something is, in words; where it is shown to be worse, but not
    by how much, they say so."""
    if not one.may_be_best and one.low <= 0.0:
        return f"more than 0, to {found.measure.number(one.high)}"
    return found.measure.worse_by(one.low, one.high)


def value_text(found: SnapshotRanking, one: Snapshot) -> str:
    """A snapshot's value at its best setting, with its interval."""
    return with_interval(one.value, one.value_low, one.value_high, found.measure.digits)


def picks_text(found: SnapshotRanking, setting: FixedSetting) -> str:
    """Which snapshot a fixed setting picks, in words."""
    names = [found.snapshots[place].name for place in setting.picks]
    if len(names) == 1:
        return names[0]
    if len(names) == len(found.snapshots):
        return "cannot be told"
    return f"cannot be told: {' or '.join(names)}"


def snapshot_curve(rows: Sequence[CellRow], found: SnapshotRanking) -> bytes:
    """Draws the value of each snapshot at its own best setting over training, with the intervals
    that hold together, and the curves of some fixed settings."""
    history, drawn = by_snapshot(rows, found)
    least = 1e-3 if found.measure.lower_is_better else -math.inf  # on a logarithmic axis
    ends = [(one.value, max(one.value_low, least), one.value_high) for one in found.snapshots]
    return checkpoint_curve(history, drawn, found.measure, at_best=ends)


def by_snapshot(
    rows: Sequence[CellRow], found: SnapshotRanking
) -> tuple[list[list[CellRow]], list[str]]:
    """Returns each snapshot's rows in their order, and the settings whose course is drawn."""
    by_weights: dict[str, list[CellRow]] = {one.weights_digest: [] for one in found.snapshots}
    for row in rows:
        by_weights[row.weights_digest].append(row)
    settings = [one.setting for one in found.snapshots]
    settings += [one.setting for one in found.settings]
    return list(by_weights.values()), list(dict.fromkeys(settings))[:MOST_CURVES]


def _best(rows: Mapping[int, CellRow], found: SnapshotRanking) -> str:
    measure, first = found.measure, found.snapshots[found.best]
    row = next(row for row in rows.values() if row.cell_digest == found.leader)
    sure = f"{100 * found.confidence:g} % confidence"
    score = f"{measure.title} {value_text(found, first)}, N = {row.n_images}"
    named = f"{first.name} at {cell_name(row)} ({score})"
    of = f"of {len(found.cells)} cells of {_counted(len(found.snapshots), 'snapshot')}"
    ties = sum(cell.may_be_best for name, cell in found.cells.items() if name != found.leader)
    if not ties:
        return f"The best is {named}, {of}, with {sure}."
    return (
        f"The {measure.extreme} {measure.title} is that of {named}, {of}; "
        f"{_counted(ties, 'other cell')} cannot be told from the best, and all others are worse, "
        f"with {sure}."
    )


def _others(found: SnapshotRanking) -> list[str]:
    """The other snapshots, each at its own best setting."""
    if len(found.order) < 2:
        return []
    said = []
    for one in (found.snapshots[place] for place in found.order[1:]):
        if one.behind.may_be_best:
            said.append(f"{one.name} may be up to {found.measure.number(one.behind.high)} worse")
        else:
            said.append(f"{one.name} is worse by {worse_text(found, one.behind)}")
    return [
        f"Each at its own best setting: {'; '.join(said)} (in {found.measure.title}; this holds "
        "for all cells together, and through all looks)."
    ]


def _fixed(found: SnapshotRanking) -> str:
    """What comparing at one setting would have got wrong."""
    n = len(found.settings)
    if not n:
        return "No setting is shared by several snapshots, so none could compare them."
    named = {call: [one for one in found.settings if one.call == call] for call in get_args(Call)}
    said = []
    for one in named["wrong"]:
        names = " or ".join(found.snapshots[place].name for place in one.picks)
        said.append(
            f"{one.setting} would have picked {names}, which is not the best: worse by "
            f"{worse_text(found, one.behind)} at its own best setting"
        )
    if right := len(named["right"]):
        said.append(f"{right} of {_counted(n, 'setting')} would have picked the best snapshot")
    if open_ := named["cannot be told"]:
        most = found.measure.number(max(one.behind.high for one in open_))
        said.append(
            f"for {len(open_)} of {_counted(n, 'setting')} it cannot be told whether the pick is "
            f"right, and it is at most {most} worse than the best"
        )
    return f"Had all snapshots been compared at one setting: {'; '.join(said)}."


def _counted(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
