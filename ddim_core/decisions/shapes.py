"""How a score goes with the number of steps: it falls, rises, turns once or more, or levels off.

On each line of a grid every pair of S is compared, and all pairs of all lines are corrected
together (Bonferroni over their number, Student's t at G - 1 degrees of freedom): a difference is
told where its interval leaves 0 out. A line is then walked from the fewest steps on. A leg begins
with the first difference told, ends at its extreme, and turns where a later cell is told from one
of the leg in the other direction. So every move that is named is there with 95 % for the whole
grid. That a line levels off says that no difference was found there, and how large one may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.compare import LEVEL, require_paired
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.joint import Floats

Kind = Literal["plateau", "better", "worse", "best inside", "worst inside", "turns"]
KINDS: dict[tuple[bool, ...], Kind] = {
    (): "plateau",
    (False,): "better",
    (True,): "worse",
    (False, True): "best inside",  # of a distance, a U
    (True, False): "worst inside",  # a hump
}


@dataclass(frozen=True)
class Leg:
    """A stretch of a line along which it gets better, or worse.

    Attributes:
        worse: Which of the two.
        first, last: The cells where it starts and ends.
    """

    worse: bool
    first: CellRow
    last: CellRow


@dataclass(frozen=True)
class Shape:
    """What a line does from its fewest to its most steps.

    Attributes:
        name: Of the line.
        legs: In order of S; none where no difference is told.
        level_from: The cell from which on no difference is told; None where the last cell is told
            from the one before it.
        level_within: How much any two cells from there on differ at most, with 95 % for the grid.
        inverted: The cell of the most steps is told to be worse than the one of the fewest, and
            none to be better than that.
    """

    name: str
    legs: tuple[Leg, ...]
    level_from: CellRow | None
    level_within: float
    inverted: bool

    @property
    def kind(self) -> Kind:
        """`better` and `worse` go one way with S; `best inside` turns from better to worse, `worst
        inside` the other way; `turns` more often."""
        return KINDS.get(tuple(leg.worse for leg in self.legs), "turns")


def shapes(lines: Mapping[str, Sequence[CellRow]], measure: Measure = FID) -> list[Shape]:
    """Reads the lines of a grid that have at least two S.

    Args:
        lines: By name, each in order of S; of one protocol and noise, with intervals.
        measure: What is read.

    Raises:
        ValueError: If rows cannot be compared (names the fields), or have no interval or value.
    """
    long = {name: line for name, line in lines.items() if len(line) > 1}
    first = next(iter(long.values()), [None])[0]
    for line in long.values():
        for row in line:
            require_paired(first or row, row, measure)
    n_tests = n_comparisons(long)
    return [_shape(name, line, n_tests, measure) for name, line in long.items()]


def n_comparisons(lines: Mapping[str, Sequence[CellRow]]) -> int:
    """Counts the pairs of S on all lines, for which each is corrected."""
    return sum(len(line) * (len(line) - 1) // 2 for line in lines.values())


def _shape(name: str, line: Sequence[CellRow], n_tests: int, measure: Measure) -> Shape:
    found = measure.together(line)
    apart, reach = -found.differences, found.reach(n_tests, LEVEL)  # [i, j]: j's cost minus i's
    told = np.sign(apart) * (np.abs(apart) > reach)
    level = next(i for i in range(len(line)) if not told[i:, i:].any())
    bound = (np.abs(apart) + reach)[level:, level:]
    legs = _legs(found.values, told)
    return Shape(
        name,
        tuple(Leg(worse, line[first], line[last]) for worse, first, last in legs),
        line[level] if level < len(line) - 1 else None,
        float(bound.max()) if level < len(line) - 1 else 0.0,
        inverted=bool(told[0, -1] > 0 and not (told[0] < 0).any()),
    )


def _legs(cost: Floats, told: NDArray[np.float64]) -> list[tuple[bool, int, int]]:
    """Walks a line: whether each leg gets worse, and the places where it starts and ends.

    Args:
        cost: [m] less is better.
        told: [m, m] the sign of the cost of j minus that of i; 0 where it is not told.
    """
    legs: list[tuple[bool, int, int]] = []
    way, first, last = 0.0, 0, 0
    for j in range(1, len(cost)):
        before = told[first:j, j]
        if way == 0.0:
            if before.any():
                i = int(np.argmax(np.abs(before) * np.abs(cost[first:j] - cost[j])))
                way = float(before[i])
                first, last = int(np.argmin(way * cost[:j])), j
        elif way * (cost[j] - cost[last]) > 0.0:
            last = j
        elif (before == -way).any():
            legs.append((way > 0.0, first, last))
            way, first, last = -way, last, j
    return [*legs, (way > 0.0, first, last)] if way else legs
