"""Which cell of a grid is best, and by how much each may be worse than the best.

With k cells, D_ij the estimated cost of i minus that of j, and s_ij its paired standard error:

    low_i  = max(0, max_j (D_ij - q s_ij))            q: Student's t at 1 - (level/2) / (k - 1)^2
    G      = {j : D_jl <= d s_jl for all l}           the cells that may be the best
    high_i = max(0, max_{j in G} (D_ij + d s_ij))     d: Student's t at 1 - (level/2) / (k - 1)

hold low_i <= theta_i - min_j theta_j <= high_i for all i at once with at least 1 - level. Proof:
let b be the best cell in truth. The k - 1 bounds theta_i - theta_b <= D_ib + d s_ib fail with at
most level/2 (Bonferroni, so whatever the cells' dependence); where they hold, b lies in G, since
D_bl - d s_bl <= theta_b - theta_l <= 0, each high_i covers the bound against b, and low_b is 0.
That b is unknown costs nothing: it is one cell, and not the luckiest one. The (k - 1)^2 bounds
theta_i - theta_j >= D_ij - q s_ij, i not b, fail with at most level/2 too, and theta_i - min is no
less than any theta_i - theta_j. Of two cells the better of which is not known beforehand, this is
the usual 95 % interval of their difference, cut at 0.

Source: Hsu 1981, "Simultaneous confidence intervals for all distances from the 'best'" (Annals of
Statistics 9), for `high` and G. The lower bounds of Edwards and Hsu 1983 (JASA 78) have to hold
against every member of G, which ties more cells than bounds of all pairs do; so `low` is of these.

A cell is tied with the best if and only if its interval holds 0: label and interval are one
statement, and a p-value is the smallest level at which the label would turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.compare import LEVEL, require_paired
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow, floor_interval
from ddim_core.statistics.joint import Floats, Joint

SHARE = 0.02  # of the best value: a difference that does not count, where nothing says better
MANTISSAS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
MOST = 10**9  # images a cell; what would take more is not decided by images


@dataclass(frozen=True)
class Margin:
    """A difference that does not count, and where it comes from, in words."""

    value: float
    source: str


@dataclass(frozen=True)
class Standing:
    """How a cell stands to the best of its grid.

    Attributes:
        row: The cell's.
        behind: How much worse its estimate is than the best estimate, in the measure's unit.
        low, high: How much worse it is in truth than whichever cell is the best; 95 % for all cells
            of the grid together.
        p_value: Of its being as good as the best, corrected for the grid.
        decided_at: Images a cell at which it would be shown to be worse, or to be within the
            margin, if the estimates stay (standard errors fall as 1 / sqrt(N)); None where these
            images say it already, or none ever would.
    """

    row: CellRow
    behind: float
    low: float
    high: float
    p_value: float
    decided_at: int | None = None

    @property
    def tied(self) -> bool:
        """Whether it cannot be told from the best: the interval holds 0."""
        return self.low <= 0.0


@dataclass(frozen=True)
class Ranking:
    """The cells of a grid beside its best.

    Attributes:
        measure: What decides.
        margin: What does not count.
        standings: In the order of the rows.
    """

    measure: Measure
    margin: Margin
    standings: tuple[Standing, ...]

    @property
    def best(self) -> Standing:
        """The cell of the best estimate."""
        return min(self.standings, key=lambda found: found.behind)

    @property
    def ties(self) -> list[Standing]:
        """The other cells that cannot be told from the best, the best estimate first."""
        others = [found for found in self.standings if found.tied and found is not self.best]
        return sorted(others, key=lambda found: found.behind)

    @property
    def within(self) -> list[Standing]:
        """The cells shown not to be worse than the best by more than the margin, the cheapest
        first. The bounds hold together, so that any of them may be chosen."""
        shown = [found for found in self.standings if found.high <= self.margin.value]
        return sorted(shown, key=lambda found: (found.row.nfe, found.behind))

    @property
    def recommended(self) -> CellRow | None:
        """The cheapest of these, in network calls an image; None if no cell is shown to be one."""
        return self.within[0].row if self.within else None


def rank(rows: Sequence[CellRow], measure: Measure = FID, margin: Margin | None = None) -> Ranking:
    """Compares every cell with the best of its grid.

    Args:
        rows: Of one protocol and noise, with intervals.
        measure: What decides.
        margin: A difference that does not count; None takes 2 % of the best value.

    Raises:
        ValueError: If rows cannot be compared (names the fields), or have no interval or value.
    """
    for row in rows[1:]:
        require_paired(rows[0], row, measure)
    found, margin = measure.together(rows), margin or usual_margin(rows, measure)
    intervals = Intervals.of(found)
    low, high = intervals.at(1.0)
    p_values = _p_values(found)
    wanted = _decided_at(intervals, margin.value, rows[0].n_images)
    best = int(np.argmin(found.values))
    standings = [
        Standing(
            row, float(found.differences[i, best]), float(low[i]), float(high[i]),
            float(p_values[i]), wanted[i],
        )
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return Ranking(measure, margin, tuple(standings))


def usual_margin(rows: Sequence[CellRow], measure: Measure = FID, asked: float = 0.0) -> Margin:
    """Returns what is asked for; else half of the interval of held-out real images, as the rows
    say; else 2 % of the best value.

    Args:
        rows: Of a grid.
        measure: What decides.
        asked: A difference that does not count; 0 asks for none.
    """
    if asked:
        return Margin(asked, "as asked")
    told = (floor_interval(row, measure.name) for row in rows)
    if interval := next(filter(None, told), None):  # rows of older versions say none
        low, high = interval
        return Margin((high - low) / 2.0, "half of the interval of held-out real images")
    best = min(rows, key=measure.cost)
    value = SHARE * abs(measure.value(best))
    return Margin(value, f"{100 * SHARE:g} % of the {measure.extreme} {measure.title}")


@dataclass(frozen=True, eq=False)
class Intervals:
    """The formulas of the first lines.

    Attributes:
        apart: [k, k] D_ij.
        below, above: [k, k] q s_ij and d s_ij; infinite of two cells that were never compared.
    """

    apart: Floats
    below: Floats
    above: Floats

    @classmethod
    def of(cls, found: Joint) -> Intervals:
        return cls(found.differences, *reaches(found, len(found.values), LEVEL))

    def of_cells(self, places: Sequence[int]) -> Intervals:
        """Those of some cells, such as all but those that failed."""
        pairs = np.ix_(places, places)
        return Intervals(self.apart[pairs], self.below[pairs], self.above[pairs])

    def may_be_best(self, scale: float = 1.0) -> NDArray[np.bool_]:
        """[k] whether a cell lies in G."""
        return np.asarray((self.apart <= scale * self.above).all(axis=1))

    def at(self, scale: float) -> tuple[Floats, Floats]:
        """[k] low and high, where all standard errors are this share of what they are."""
        above = scale * self.above
        highs = np.where(self.may_be_best(scale), self.apart + above, -np.inf).max(axis=1)
        lows = (self.apart - scale * self.below).max(axis=1)
        return np.maximum(lows, 0.0), np.maximum(highs, 0.0)


def reaches(found: Joint, k: int, level: float) -> tuple[Floats, Floats]:
    """Returns [., .] q s_ij and d s_ij of k cells at this level."""
    return found.reach((k - 1) ** 2, level), found.reach(k - 1, level)


def _p_values(found: Joint) -> Floats:
    """[k] the smallest level at which each cell's interval leaves 0 out."""
    n_tests = (len(found.values) - 1) ** 2
    return np.asarray(np.where(found.differences > 0.0, found.p_values(n_tests), 1.0).min(axis=1))


def _decided_at(intervals: Intervals, margin: float, n: int) -> list[int | None]:
    """Images a cell at which each would be decided, of rounded numbers above n."""
    low, high = intervals.at(1.0)
    decided: list[int | None] = [None] * len(low)
    open_ = (low <= 0.0) & (high > margin)
    for wanted in (int(m * 10.0**p) for p in range(10) for m in MANTISSAS):
        if not n or not open_.any() or wanted > MOST:
            break
        if wanted <= n:
            continue
        low, high = intervals.at(np.sqrt(n / wanted))
        for i in np.flatnonzero(open_ & ((low > 0.0) | (high <= margin))):
            decided[i], open_[i] = wanted, False
    return decided
