"""All pairs of rows of two sets, by blocks whose matrices a processor's cache holds.

KID, precision and recall look at the same pairs, whose inner products are most of their work: taken
once, they serve all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ddim_core.statistics.moments import Floats
from ddim_core.statistics.rows import BLOCK, FeatureRows, places

TILE = 256  # rows: a matrix of two blocks is 512 kB


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows x of a set as they are seen from an origin o.

    Attributes:
        place: Which rows of the set.
        centred: x - o, [b, d].
        squared: |x - o|^2, [b].
        shift: (x - o).o + |o|^2 / 2, [b]: x.y = (x - o).(y - o) + shift of x + shift of y.
    """

    place: slice
    centred: Floats
    squared: Floats
    shift: Floats


class Pairs:
    """All pairs of one of the rows `a` and one of the rows `b`.

    Attributes:
        a, b: The rows.
        i, j: Their places.
    """

    def __init__(self, a: Rows, b: Rows) -> None:
        self.a, self.b = a, b
        self.i, self.j = a.place, b.place
        self._centred: Floats = a.centred @ b.centred.T  # of rows with themselves BLAS takes half
        self._distances: Floats | None = None

    def products(self) -> Floats:
        """x.y of all pairs, [len(a), len(b)]."""
        products: Floats = self._centred + self.a.shift[:, None]
        products += self.b.shift
        return products

    def squared_distances(self) -> Floats:
        """|x - y|^2 of all pairs, [len(a), len(b)]; exactly 0 where the rows are equal.

        Taken once for all that look at them; not to be written to.
        """
        if self._distances is None:
            self._distances = self._squared()
        return self._distances

    def _squared(self) -> Floats:
        a, b = self.a, self.b
        distances: Floats = self._centred * -2.0
        distances += a.squared[:, None]
        distances += b.squared
        # Below this share of |x|^2 + |y|^2 it is rounding. Few are near: look at these alone.
        rounding = 4.0 * np.finfo(np.float64).eps * np.sqrt(a.centred.shape[1])
        lowest = distances.min(axis=1)
        lines = np.flatnonzero(lowest <= rounding * (a.squared + b.squared.max()))
        if lines.size:
            some = distances[lines]
            norms = a.squared[lines, None] + b.squared
            distances[lines] = np.where(some <= rounding * norms, 0.0, some)
        return distances


class Looks(Protocol):
    """What looks at pairs, a block at a time."""

    def within(self, pairs: Pairs) -> None:
        """Takes pairs of generated rows: each two blocks once, a.place not after b.place."""

    def across(self, pairs: Pairs) -> None:
        """Takes pairs of generated and reference rows, when it has seen all of `within`."""


def look_at_pairs(
    generated: FeatureRows, reference: FeatureRows, origin: Floats | None, looks: Sequence[Looks]
) -> None:
    """Shows all pairs of generated rows, then all of generated and reference rows, to all looks.

    Memory: two blocks of 1,024 rows and some matrices of 512 kB, whatever n and m.

    Args:
        generated: [n, d].
        reference: [m, d].
        origin: [d], near the rows so that distances lose few digits; None is 0.
        looks: What looks.
    """
    for pairs in pairs_within(generated, origin):
        for look in looks:
            look.within(pairs)
    for pairs in pairs_across(generated, reference, origin):
        for look in looks:
            look.across(pairs)


def pairs_within(x: FeatureRows, origin: Floats | None = None) -> Iterator[Pairs]:
    """Yields the pairs of a set by blocks on and above the diagonal."""
    cuts = places(len(x), BLOCK)
    for k, place in enumerate(cuts):
        left = _rows(x, place, origin)
        for n, a in enumerate(left):
            for b in left[n:]:
                yield Pairs(a, b)
        for other in cuts[k + 1 :]:
            for b in _rows(x, other, origin):
                for a in left:
                    yield Pairs(a, b)


def pairs_across(x: FeatureRows, y: FeatureRows, origin: Floats | None = None) -> Iterator[Pairs]:
    """Yields the pairs of a row of x and a row of y by blocks."""
    for place in places(len(x), BLOCK):
        left = _rows(x, place, origin)
        for other in places(len(y), BLOCK):
            for b in _rows(y, other, origin):
                for a in left:
                    yield Pairs(a, b)


def _rows(x: FeatureRows, place: slice, origin: Floats | None) -> list[Rows]:
    o = np.zeros(x.columns) if origin is None else origin
    centred = x.read(place.start, place.stop) - o
    squared = np.einsum("id,id->i", centred, centred)
    shift = centred @ o + float(o @ o) / 2.0
    return [
        Rows(slice(place.start + t.start, place.start + t.stop), centred[t], squared[t], shift[t])
        for t in places(len(centred), TILE)
    ]
