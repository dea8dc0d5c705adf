"""Images that stand more than once in a set: they are not independent draws.

Exact duplicates have equal features, bit for bit. A jackknife that leaves one of them out and keeps
the other takes them for two images, so they are put into one group, and counted as what they tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.statistics.moments import Floats
from ddim_core.statistics.pairs import Pairs
from ddim_core.statistics.rows import BLOCK, FeatureRows, places

# Nearer than this share of the usual distance between neighbours among the real images. On the
# digits' features 0 of 2,048 generated images are; an image and its JPEG of quality 95 are.
NEAR = 0.05
MANY = 8  # features; with fewer, neighbours are near by chance, and are to be nearer still


@dataclass(frozen=True, eq=False)
class Together:
    """A set's rows, duplicates side by side.

    Attributes:
        members: Rows of the set by group, each [m_g], duplicates in the group of the first of them.
        rows: All rows in the order of `members`.
        groups: The groups in this order.
        effective: How many independent images all rows count for, then those without each group:
            n^2 / sum of squared multiplicities.
        duplicates: Rows that equal an earlier one.
    """

    members: tuple[NDArray[np.intp], ...]
    rows: FeatureRows
    groups: tuple[slice, ...]
    effective: tuple[float, ...]
    duplicates: int


def duplicates_together(features: FeatureRows, groups: Sequence[slice]) -> Together | None:
    """Puts exact duplicates into one group; None where no row stands twice.

    Memory: 32 bytes a row.

    Args:
        features: [n, d].
        groups: Consecutive slices that cover the rows.
    """
    first_seen: dict[bytes, int] = {}
    kind = np.empty(len(features), dtype=np.intp)  # the place of each row's first duplicate
    for place, rows in features.blocks():
        for i, row in enumerate(np.ascontiguousarray(rows + 0.0), start=place.start):  # -0 is 0
            kind[i] = first_seen.setdefault(hashlib.blake2b(row, digest_size=16).digest(), i)
    if len(first_seen) == len(features):
        return None
    edges = [group.start for group in groups]
    home = np.searchsorted(edges, kind, side="right") - 1
    members = [np.flatnonzero(home == g) for g in range(len(groups))]
    members = [rows for rows in members if rows.size]
    starts = np.cumsum([0, *(rows.size for rows in members)])
    counts = np.bincount(kind, minlength=len(features)).astype(np.float64)
    squares = [float((counts[rows] ** 2).sum()) for rows in members]  # of other rows it is 0
    n, total = len(features), sum(squares)
    rests = [
        (n - rows.size) ** 2 / (total - own) if n > rows.size else 0.0
        for rows, own in zip(members, squares, strict=True)
    ]
    return Together(
        members=tuple(members),
        rows=_reordered(features, np.concatenate(members)),
        groups=tuple(slice(int(a), int(b)) for a, b in pairwise(starts)),
        effective=(n * n / total, *rests),
        duplicates=n - len(first_seen),
    )


def _reordered(features: FeatureRows, order: NDArray[np.intp]) -> FeatureRows:
    cuts = places(len(order), BLOCK)
    starts = (*(cut.start for cut in cuts), len(order))
    return FeatureRows(_Gathered(features, [order[cut] for cut in cuts]), starts, features.columns)


class _Gathered(Sequence[NDArray[Any]]):
    """Blocks of chosen rows, gathered when asked for."""

    def __init__(self, features: FeatureRows, chosen: list[NDArray[np.intp]]) -> None:
        self._features, self._chosen = features, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        return self._features.take(self._chosen[index])


@dataclass(frozen=True)
class Copies:
    """How many generated images are not new; None where nobody looked.

    Attributes:
        near_duplicates: Images whose nearest other generated one is not equal, but nearer than
            `NEAR` allows.
        memorised: Images that lie so near to a real one of the reference.
    """

    near_duplicates: int | None = None
    memorised: int | None = None


class CopyCount:
    """`Copies` as something that looks at pairs, see `pairs.look_at_pairs`.

    Args:
        n: How many generated rows there are.
        columns: d.
        usual: The usual squared distance between a real image and its neighbours.
    """

    def __init__(self, n: int, columns: int, usual: float) -> None:
        self._near = NEAR ** (2 * max(1.0, MANY / columns)) * usual
        self._of_made, self._of_real = np.full(n, np.inf), np.full(n, np.inf)

    def within(self, pairs: Pairs) -> None:
        """Takes pairs of generated rows."""
        distances, on = pairs.squared_distances(), pairs.on
        if pairs.i == pairs.j:
            distances = distances + 0.0  # a copy
            on.fill_diagonal(distances, np.inf)
        else:
            _keep(self._of_made, pairs.i, on.least(distances, 1))
        _keep(self._of_made, pairs.j, on.least(distances, 0))

    def across(self, pairs: Pairs) -> None:
        """Takes pairs of generated and reference rows."""
        _keep(self._of_real, pairs.i, pairs.on.least(pairs.squared_distances(), 1))

    def count(self) -> Copies:
        """The counts, when all pairs have been seen."""
        near = (self._of_made > 0.0) & (self._of_made <= self._near)
        return Copies(int(near.sum()), int((self._of_real <= self._near).sum()))


def _keep(nearest: Floats, place: slice, found: Floats) -> None:
    np.minimum(nearest[place], found, out=nearest[place])
