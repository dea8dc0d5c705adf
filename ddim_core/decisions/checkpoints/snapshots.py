"""Which of several snapshots is best, each at its own best setting, from the looks of a race.

All cells (snapshot x setting) race together (`ddim_core.decisions.race`). A race looks at its
open cells at up to R numbers of images, which are known before the first. Where the bounds of
`ddim_core.decisions.best` have level / R at each of these numbers, they hold at all of them at once
(a union bound over the looks), whichever cells the race went on with, and whenever it stopped. Of
two cells those of the last look that both had count, and with them hold together, with at least the
confidence asked for:

    low_c <= theta_c - min theta <= high_c                         every cell c
    min low_c <= min theta_c - min theta <= min high_c             every snapshot, c over its cells
    theta_c > theta_d where D_cd > q s_cd                          what a fixed setting would pick

since the last two follow from the first and from the bounds that it is made of. Half of the error
allowed is that of the upper bounds, by which a race may stop cells (`stopping`); so the best cell
is among those not stopped with no more than that half. What remains of a budget is looked at
at a number that was not planned, and bounds nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ddim_core.decisions.best import Intervals, reaches
from ddim_core.decisions.checkpoints.verdict import setting_of
from ddim_core.decisions.compare import require_paired
from ddim_core.decisions.measure import Measure, measure_of
from ddim_core.decisions.race import Rules
from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.statistics.joint import Floats

Call = Literal["right", "wrong", "cannot be told"]


@dataclass(frozen=True)
class Behind:
    """How much worse something is than the best cell of all, in the measure's unit.

    Attributes:
        low, high: It lies between these; of everything that is ranked, together.
        may_be_best: It is not shown to be worse. Where it is, `low` may still be 0: then it is
            worse, and by how little is open.
    """

    low: float
    high: float
    may_be_best: bool


@dataclass(frozen=True)
class Snapshot:
    """A checkpoint at its own best setting.

    Attributes:
        name: Of the checkpoint, with its digest's start where another one is called alike.
        training_step, weights_digest: As in its rows.
        setting, cell_digest, n_images: Of its best cell; of those that got most images the one of
            the best value.
        value, value_low, value_high: Of the measure, at its best setting whichever that is; all
            snapshots' intervals hold together, through all looks and whatever cell was chosen.
        behind: At its best setting, to the best of all.
    """

    name: str
    training_step: int | None
    weights_digest: str
    setting: str
    cell_digest: str
    n_images: int
    value: float
    value_low: float
    value_high: float
    behind: Behind


@dataclass(frozen=True)
class FixedSetting:
    """What a comparison of all snapshots at one setting would have come to.

    Attributes:
        setting: Its name.
        picks: Places of the snapshots that are not shown to be worse than another one there; one
            where it is shown which is the best there.
        behind: The picked snapshot at its own best setting; of several picks what holds for all.
        there: The picked snapshot at this setting.
        call: Whether the pick is the best snapshot (`right`), shown to be none (`wrong`), or open.
    """

    setting: str
    picks: tuple[int, ...]
    behind: Behind
    there: Behind
    call: Call


@dataclass(frozen=True)
class SnapshotRanking:
    """Snapshots and settings beside the best of all.

    Attributes:
        measure: What they are compared by.
        confidence: Of all that is said here, together; the intervals of `Snapshot.value` together
            have it by themselves.
        leader: Digest of the best cell.
        best: Place of its snapshot.
        cells: By their digests.
        snapshots: In the order of their cells.
        settings: Those that all snapshots have.
    """

    measure: Measure
    confidence: float
    leader: str
    best: int
    cells: dict[str, Behind]
    snapshots: tuple[Snapshot, ...]
    settings: tuple[FixedSetting, ...]

    @property
    def order(self) -> list[int]:
        """Places of the snapshots, the best first."""

        def rank(i: int) -> tuple[bool, bool, float]:
            found = self.snapshots[i]
            cost = found.value if self.measure.lower_is_better else -found.value
            return i != self.best, not found.behind.may_be_best, cost

        return sorted(range(len(self.snapshots)), key=rank)

    @property
    def decided(self) -> bool:
        """Whether one snapshot alone may be the best."""
        return sum(one.behind.may_be_best for one in self.snapshots) == 1


def stopping(rules: Rules) -> Rules:
    """Returns the rules by which cells are stopped: those asked for, at half of the error."""
    return replace(rules, confidence=(1.0 + rules.confidence) / 2.0)


def rank_snapshots(
    looks: Sequence[Mapping[int, CellRow]],
    of: Sequence[int],
    rules: Rules,
    measure: Measure,
    leader: int | None,
) -> SnapshotRanking:
    """Ranks snapshots by their cells' rows at all looks of a race, or at the one of full grids.

    Args:
        looks: Rows by place of the cell, at equal image counts within a look.
        of: Place of the snapshot of each of the k cells.
        rules: What was asked for, whose numbers of images are those planned; of full grids the
            first is the most.
        measure: What decides.
        leader: Place of the best cell, where the race says it; None takes the best value.

    Raises:
        ValueError: If rows cannot be compared (names the fields), have no value, or there are too
            few images for intervals.
    """
    planned = [look for look in looks if look and _n_images(look) in rules.counts()]
    rows = {i: row for look in planned for i, row in look.items()}
    measure = _shared(measure, planned)
    everything = [row for look in planned for row in look.values()]
    if not everything or not measure.has_intervals(everything):
        raise ValueError(
            f"{rules.most} images a cell are too few for intervals of {measure.title}, by which "
            "snapshots are ranked; raise n_images"
        )
    level = (1.0 - rules.confidence) / len(rules.counts())
    found = _together(planned, len(of), level, measure)
    if leader not in rows:
        leader = min(rows, key=lambda i: measure.cost(rows[i]))
    of_rows = found.of_cells(list(rows))
    ends = zip(*of_rows.at(1.0), of_rows.may_be_best(), strict=True)
    cells = {
        i: Behind(float(low), float(high), bool(may_be_best))
        for i, (low, high, may_be_best) in zip(rows, ends, strict=True)
    }
    of_each = [[i for i in rows if of[i] == place] for place in range(max(of) + 1)]
    of_each = [places for places in of_each if places]
    snapshots = _distinct(
        _snapshot(rows, places, cells, measure, leader, level / len(of)) for places in of_each
    )
    return SnapshotRanking(
        measure=measure,
        confidence=rules.confidence,
        leader=rows[leader].cell_digest,
        best=next(s for s, places in enumerate(of_each) if leader in places),
        cells={rows[i].cell_digest: cell for i, cell in cells.items()},
        snapshots=snapshots,
        settings=_settings(rows, of_each, found, cells, snapshots),
    )


def _distinct(found: Iterable[Snapshot]) -> tuple[Snapshot, ...]:
    """Snapshots by names that differ."""
    snapshots = tuple(found)
    times = Counter(one.name for one in snapshots)
    return tuple(
        replace(one, name=f"{one.name} ({one.weights_digest[:8]})") if times[one.name] > 1 else one
        for one in snapshots
    )


def _n_images(look: Mapping[int, CellRow]) -> int:
    return next(iter(look.values())).n_images


def _shared(asked: Measure, looks: Sequence[Mapping[int, CellRow]]) -> Measure:
    """What asks the same at every look: the unbiased measure where image counts differ."""
    unbiased = measure_of(asked.unbiased or asked.name)
    everywhere = all(unbiased.is_known(row) for look in looks for row in look.values())
    return unbiased if len(looks) > 1 and everywhere else asked


def _together(
    looks: Sequence[Mapping[int, CellRow]], k: int, level: float, measure: Measure
) -> Intervals:
    """The bounds of the last look at each pair of k cells."""
    apart = np.zeros((k, k))
    below, above = (np.full((k, k), np.inf) for _ in range(2))
    for look in looks:
        places = list(look)
        pairs = np.ix_(places, places)
        for i in places[1:]:
            require_paired(look[places[0]], look[i], measure)
        found = measure.together([look[i] for i in places])
        apart[pairs] = found.differences
        below[pairs], above[pairs] = reaches(found, k, level)
    for square in (below, above):
        np.fill_diagonal(square, 0.0)
    return Intervals(apart, below, above)


def _snapshot(
    rows: Mapping[int, CellRow],
    places: Sequence[int],
    cells: Mapping[int, Behind],
    measure: Measure,
    leader: int,
    level: float,
) -> Snapshot:
    """One snapshot from its cells: the best of these has the least of all bounds."""
    most = max(rows[i].n_images for i in places)
    furthest = [i for i in places if rows[i].n_images == most]
    best = leader if leader in places else min(furthest, key=lambda i: measure.cost(rows[i]))
    ends = np.array([_own(rows[i], measure, level) for i in places]).min(axis=0)
    if measure.lower_is_better:
        ends = np.maximum(ends, 0.0)  # a distance
    low, high = sorted(float(end) if measure.lower_is_better else -float(end) for end in ends)
    row = rows[best]
    return Snapshot(
        name=row.checkpoint,
        training_step=row.training_step,
        weights_digest=row.weights_digest,
        setting=cell_name(row),
        cell_digest=row.cell_digest,
        n_images=row.n_images,
        value=measure.value(row),
        value_low=low,
        value_high=high,
        behind=_least([cells[i] for i in places]),
    )


def _own(row: CellRow, measure: Measure, level: float) -> tuple[float, float]:
    """The ends of a cell's own interval at this level, as costs."""
    found = measure.together([row])
    half = float(found.quantile(1, level) * found.alone[0])
    return float(found.values[0]) - half, float(found.values[0]) + half


def _least(found: Sequence[Behind]) -> Behind:
    """Of the best of some cells, whichever it is."""
    return Behind(
        min(one.low for one in found),
        min(one.high for one in found),
        any(one.may_be_best for one in found),
    )


def _any(found: Sequence[Behind]) -> Behind:
    """What holds for each of some cells or snapshots, of which one is meant."""
    return replace(_least(found), high=max(one.high for one in found))


def _settings(
    rows: Mapping[int, CellRow],
    of_each: Sequence[Sequence[int]],
    found: Intervals,
    cells: Mapping[int, Behind],
    snapshots: Sequence[Snapshot],
) -> tuple[FixedSetting, ...]:
    """What each setting that all snapshots have would have picked."""
    named = [{setting_of(rows[i]): i for i in places} for places in of_each]
    worse: Floats = found.apart - found.below
    best = [s for s, one in enumerate(snapshots) if one.behind.may_be_best]
    told = []
    for setting in named[0] if len(named) > 1 else []:
        if not all(setting in cells_of for cells_of in named):
            continue
        column = [cells_of[setting] for cells_of in named]
        picks = [s for s, i in enumerate(column) if not (worse[i, column] > 0.0).any()]
        call: Call = "cannot be told"
        if not set(picks) & set(best):
            call = "wrong"
        elif picks == best and len(best) == 1:
            call = "right"
        behind = _any([snapshots[s].behind for s in picks])
        there = _any([cells[column[s]] for s in picks])
        name = cell_name(rows[column[0]])
        told.append(FixedSetting(name, tuple(picks), behind, there, call))
    return tuple(told)
