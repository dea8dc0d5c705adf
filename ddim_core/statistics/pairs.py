"""All pairs of rows of two sets, by blocks whose matrices a processor's cache, or a card, holds.

KID, precision and recall look at the same pairs, whose inner products are most of their work: taken
once, they serve all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.rows import BLOCK, FeatureRows, places

TILE = 256  # rows: a matrix of two blocks is 512 kB
CARD_TILE = 2048  # rows on a card: 32 MB, of which a look holds a few


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows x of a set as they are seen from an origin o; where the pairs are computed.

    Attributes:
        place: Which rows of the set.
        centred: x - o, [b, d].
        squared: |x - o|^2, [b].
        shift: (x - o).o + |o|^2 / 2, [b]: x.y = (x - o).(y - o) + shift of x + shift of y.
    """

    place: slice
    centred: Any
    squared: Any
    shift: Any


class Pairs:
    """All pairs of one of the rows `a` and one of the rows `b`.

    Attributes:
        a, b: The rows.
        i, j: Their places.
        on: What computes, and holds the matrices.
    """

    def __init__(self, a: Rows, b: Rows, on: Float64 = ON_CPU) -> None:
        self.a, self.b, self.on = a, b, on
        self.i, self.j = a.place, b.place
        self._centred = a.centred @ b.centred.T  # of rows with themselves BLAS takes half
        self._distances: Any = None

    def products(self) -> Any:
        """x.y of all pairs, [len(a), len(b)]."""
        products = self._centred + self.a.shift[:, None]
        products += self.b.shift
        return products

    def squared_distances(self) -> Any:
        """|x - y|^2 of all pairs, [len(a), len(b)]; exactly 0 where the rows are equal.

        Computed once for all who look: to be read, not written.
        """
        if self._distances is None:
            self._distances = self._squared_distances()
        return self._distances

    def _squared_distances(self) -> Any:
        a, b = self.a, self.b
        distances = self._centred * -2.0
        distances += a.squared[:, None]
        distances += b.squared
        # Below this share of |x|^2 + |y|^2 it is rounding.
        rounding = 4.0 * np.finfo(np.float64).eps * np.sqrt(a.centred.shape[1])
        self.on.zero_within(distances, float(rounding), a.squared, b.squared)
        return distances


class Looks(Protocol):
    """What looks at pairs, a block at a time."""

    def within(self, pairs: Pairs) -> None:
        """Takes pairs of generated rows: each two blocks once, a.place not after b.place."""

    def across(self, pairs: Pairs) -> None:
        """Takes pairs of generated and reference rows, when it has seen all of `within`."""


def look_at_pairs(
    generated: FeatureRows,
    reference: FeatureRows,
    origin: Floats | None,
    looks: Sequence[Looks],
    on: Float64 = ON_CPU,
) -> None:
    """Shows all pairs of generated rows, then all of generated and reference rows, to all looks.

    Memory: two blocks of 1,024 rows and some matrices of 512 kB, whatever n and m; on a card, of
    2,048 rows and some matrices of 32 MB.

    Args:
        generated: [n, d].
        reference: [m, d].
        origin: [d], near the rows so that distances lose few digits; None is 0.
        looks: What looks.
        on: What computes.
    """
    for pairs in pairs_within(generated, origin, on):
        for look in looks:
            look.within(pairs)
    for pairs in pairs_across(generated, reference, origin, on):
        for look in looks:
            look.across(pairs)


def pairs_within(
    x: FeatureRows, origin: Floats | None = None, on: Float64 = ON_CPU
) -> Iterator[Pairs]:
    """Yields the pairs of a set by blocks on and above the diagonal."""
    cuts = _places(x, on)
    for k, place in enumerate(cuts):
        left = _rows(x, place, origin, on)
        for n, a in enumerate(left):
            for b in left[n:]:
                yield Pairs(a, b, on)
        for other in cuts[k + 1 :]:
            for b in _rows(x, other, origin, on):
                for a in left:
                    yield Pairs(a, b, on)


def pairs_across(
    x: FeatureRows, y: FeatureRows, origin: Floats | None = None, on: Float64 = ON_CPU
) -> Iterator[Pairs]:
    """Yields the pairs of a row of x and a row of y by blocks."""
    for place in _places(x, on):
        left = _rows(x, place, origin, on)
        for other in _places(y, on):
            for b in _rows(y, other, origin, on):
                for a in left:
                    yield Pairs(a, b, on)


def _places(x: FeatureRows, on: Float64) -> list[slice]:
    return places(len(x), CARD_TILE if on.on_card else BLOCK)


def _rows(x: FeatureRows, place: slice, origin: Floats | None, on: Float64) -> list[Rows]:
    o = on.put(np.zeros(x.columns) if origin is None else origin)
    centred = on.put(x.read(place.start, place.stop)) - o
    squared = on.row_squares(centred)
    shift = centred @ o + float(o @ o) / 2.0
    tiles = places(len(centred), CARD_TILE if on.on_card else TILE)
    return [
        Rows(slice(place.start + t.start, place.start + t.stop), centred[t], squared[t], shift[t])
        for t in tiles
    ]
