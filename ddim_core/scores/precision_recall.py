"""Precision and recall of generated features by k-nearest-neighbour manifolds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import le
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.pairs import Pairs, look_at_pairs, pairs_within
from ddim_core.statistics.rows import FeatureRows


@dataclass(frozen=True, eq=False)
class Manifold:
    """The reference's side of `precision_recall`, taken once for many comparisons.

    Attributes:
        members: Features [m, d].
        origin: Their mean [d]: distances do not change with it, but lose fewer digits near it.
        nearest: [m, most] squared distances to each member's nearest neighbours, ascending.
        k: Neighbours that precision and recall count.
    """

    members: FeatureRows
    origin: Floats
    nearest: Floats
    k: int

    @classmethod
    def of(
        cls,
        reference: ArrayLike | FeatureRows,
        k: int = 3,
        most: int = 0,
        on: Float64 = ON_CPU,
    ) -> Manifold:
        """Measures a reference [m, d].

        Args:
            reference: It.
            k: Neighbours that precision and recall count.
            most: Neighbours that are measured, as far as there are so many; at least k.
            on: What computes.

        Raises:
            ValueError: If features are empty, not 2-D or not finite, or k is not in 1..m - 1.
        """
        members = _rows(reference, "reference")
        _require_k(k, len(members))
        sums = [rows.sum(axis=0, dtype=np.float64) for _, rows in members.blocks()]
        origin: Floats = np.sum(sums, axis=0) / len(members)
        known = min(max(k, most), len(members) - 1)
        return cls(members, origin, _neighbours(members, origin, known, on), k)

    def radii(self, k: int) -> Floats:
        """[m] squared distances to the k-th nearest neighbour, k at most those measured."""
        return np.ascontiguousarray(self.nearest[:, k - 1])


def precision_recall(
    reference: ArrayLike | FeatureRows | Manifold, generated: ArrayLike | FeatureRows, k: int = 3
) -> tuple[float, float]:
    """Takes the shares of each set that lie inside the other set's manifold.

    A set's manifold is the union of the balls around its members, each reaching as far as the
    member's k-th nearest neighbour in the set. Precision is the share of generated features
    inside the reference's manifold (fidelity), recall the share of reference features inside the
    generated one (coverage); both depend on n, m and k.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eqs. 1 and 2.

    Memory: two blocks of rows and one of distances, whatever n and m.

    Args:
        reference: Features [m, d], or what `Manifold.of` made of them (its k then counts).
        generated: Features [n, d].
        k: Neighbours, 1 <= k < min(n, m).

    Raises:
        ValueError: If features are empty, not 2-D or not finite, d differs, or k does not fit.
    """
    manifold = reference if isinstance(reference, Manifold) else Manifold.of(reference, k)
    made, real = _rows(generated, "generated"), manifold.members
    if real.columns != made.columns:
        raise ValueError(
            f"reference has {real.columns} columns and generated {made.columns}; they must agree"
        )
    _require_k(manifold.k, len(made))
    coverage = Coverage(manifold, len(made))
    look_at_pairs(made, real, manifold.origin, [coverage])
    return coverage.shares()


class Coverage:
    """`precision_recall` as something that looks at pairs, see `pairs.look_at_pairs`.

    Args:
        manifold: The reference's side.
        n: How many generated rows there are, more than its k.
        inside: What of a distance and a radius lies inside: `le` as in the paper, or `lt`.
    """

    def __init__(self, manifold: Manifold, n: int, inside: Callable[..., Any] = le) -> None:
        self._radii, self._inside = manifold.radii(manifold.k), inside
        self._nearest = _no_neighbours(n, manifold.k)
        self._precise = np.zeros(n, dtype=np.bool_)
        self._recalled = np.zeros(len(manifold.members), dtype=np.bool_)

    def within(self, pairs: Pairs) -> None:
        """Takes pairs of generated rows."""
        _keep_neighbours(self._nearest, pairs)

    def across(self, pairs: Pairs) -> None:
        """Takes pairs of generated and reference rows."""
        distances, on = pairs.squared_distances(), pairs.on
        made_radii = on.put(self._nearest[pairs.i].max(axis=1)[:, None])
        precise = self._inside(distances, on.put(self._radii[pairs.j])).any(axis=1)
        self._precise[pairs.i] |= on.got(precise)
        self._recalled[pairs.j] |= on.got(self._inside(distances, made_radii).any(axis=0))

    def shares(self) -> tuple[float, float]:
        """Precision and recall, when all pairs have been seen."""
        return float(self._precise.mean()), float(self._recalled.mean())


def _neighbours(members: FeatureRows, origin: Floats, k: int, on: Float64) -> Floats:
    """[m, k] squared distances to k neighbours, ascending, each block of pairs computed once."""
    nearest = _no_neighbours(len(members), k)
    for pairs in pairs_within(members, origin, on):
        _keep_neighbours(nearest, pairs)
    return np.sort(nearest, axis=1)[:, 1:]


def _no_neighbours(n: int, k: int) -> Floats:
    """[n, k + 1] distances: the k-th neighbour is at place k, the member itself comes first."""
    return np.full((n, k + 1), np.inf)


def _keep_neighbours(nearest: Floats, pairs: Pairs) -> None:
    """Keeps in `nearest` [n, k + 1] the smallest of itself and of the distances, row by row."""
    distances, keep = pairs.squared_distances(), nearest.shape[1]
    _keep_nearest(nearest[pairs.i], pairs.on.smallest(distances, keep))
    if pairs.i != pairs.j:
        _keep_nearest(nearest[pairs.j], pairs.on.smallest(distances.T, keep))


def _keep_nearest(nearest: Floats, few: Floats) -> None:
    keep = nearest.shape[1]
    nearest[:] = np.partition(np.hstack([nearest, few]), keep - 1, axis=1)[:, :keep]


def _rows(x: ArrayLike | FeatureRows, name: str) -> FeatureRows:
    return x if isinstance(x, FeatureRows) else FeatureRows.of_array(x, name)


def _require_k(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise ValueError(f"k is {k}; with {n} features it must lie in 1..{n - 1}")
