"""Precision and recall of generated features by k-nearest-neighbour manifolds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.feature_rows import BLOCK, FeatureRows, places
from ddim_core.moments import Floats


@dataclass(frozen=True, eq=False)
class Manifold:
    """The reference's side of `precision_recall`, taken once for many comparisons.

    Attributes:
        members: Features [m, d].
        origin: Their mean [d]: distances do not change with it, but lose fewer digits near it.
        squared_radii: [m] squared distances to each member's k-th nearest neighbour.
        k: Neighbours.
    """

    members: FeatureRows
    origin: Floats
    squared_radii: Floats
    k: int

    @classmethod
    def of(cls, reference: ArrayLike | FeatureRows, k: int = 3) -> Manifold:
        """Measures a reference [m, d].

        Raises:
            ValueError: If features are empty, not 2-D or not finite, or k is not in 1..m - 1.
        """
        members = _rows(reference, "reference")
        _require_k(k, len(members))
        sums = [rows.sum(axis=0, dtype=np.float64) for _, rows in members.blocks()]
        origin: Floats = np.sum(sums, axis=0) / len(members)
        return cls(members, origin, _squared_radii(members, origin, k), k)


def precision_recall(
    reference: ArrayLike | FeatureRows | Manifold, generated: ArrayLike | FeatureRows, k: int = 3
) -> tuple[float, float]:
    """Takes the shares of each set that lie inside the other set's manifold.

    A set's manifold is the union of the balls around its members, each reaching as far as the
    member's k-th nearest neighbour in the set. Precision is the share of generated features
    inside the reference's manifold (fidelity), recall the share of reference features inside the
    generated one (coverage); both depend on n, m and k.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eqs. 1 and 2.

    Memory: two blocks of rows and one block of distances, whatever n and m.

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
    made_radii = _squared_radii(made, manifold.origin, manifold.k)
    precise, recalled = np.zeros(len(made), dtype=bool), np.zeros(len(real), dtype=bool)
    for i in places(len(made), BLOCK):
        points = _Block.of(made, i, manifold.origin)
        for j in places(len(real), BLOCK):
            distances = points.squared_distances(_Block.of(real, j, manifold.origin))
            precise[i] |= (distances <= manifold.squared_radii[j]).any(axis=1)
            recalled[j] |= (distances <= made_radii[i, None]).any(axis=0)
    return float(precise.mean()), float(recalled.mean())


@dataclass(frozen=True, eq=False)
class _Block:
    """Some rows relative to the origin, with their squared lengths."""

    rows: Floats
    squared: Floats

    @classmethod
    def of(cls, features: FeatureRows, place: slice, origin: Floats) -> _Block:
        rows = features.read(place.start, place.stop) - origin
        return cls(rows, np.einsum("id,id->i", rows, rows))

    def squared_distances(self, others: _Block) -> Floats:
        """|p|^2 - 2 p.m + |m|^2 of all pairs; exactly 0 where the rows are equal."""
        distances: Floats = self.rows @ others.rows.T
        distances *= -2.0
        distances += self.squared[:, None]
        distances += others.squared
        # Below this share of |p|^2 + |m|^2 it is rounding. Few are near: look at these alone.
        rounding = 4.0 * np.finfo(np.float64).eps * np.sqrt(self.rows.shape[1])
        lowest = distances.min(axis=1)
        lines = np.flatnonzero(lowest <= rounding * (self.squared + others.squared.max()))
        if lines.size:
            some = distances[lines]
            norms = self.squared[lines, None] + others.squared
            distances[lines] = np.where(some <= rounding * norms, 0.0, some)
        return distances


def _squared_radii(members: FeatureRows, origin: Floats, k: int) -> Floats:
    """[m] squared distances to the k-th neighbour, each block of pairs computed once."""
    # The k-th neighbour is at place k: the member itself comes first, at 0.
    nearest = np.full((len(members), k + 1), np.inf)
    cuts = places(len(members), BLOCK)
    for i, j, distances in _pairs_of_blocks(members, origin, cuts):
        _keep_nearest(nearest[i], distances)
        if i != j:
            _keep_nearest(nearest[j], distances.T)
    return nearest.max(axis=1)


def _pairs_of_blocks(
    members: FeatureRows, origin: Floats, cuts: list[slice]
) -> Iterator[tuple[slice, slice, Floats]]:
    for a, i in enumerate(cuts):
        points = _Block.of(members, i, origin)
        yield i, i, points.squared_distances(points)
        for j in cuts[a + 1 :]:
            yield i, j, points.squared_distances(_Block.of(members, j, origin))


def _keep_nearest(nearest: NDArray[np.float64], distances: Floats) -> None:
    """Keeps in `nearest` [rows, k + 1] the smallest of itself and of `distances`, row by row."""
    keep = nearest.shape[1]
    few = distances
    if distances.shape[1] > keep:
        few = np.partition(distances, keep - 1, axis=1)[:, :keep]
    nearest[:] = np.partition(np.hstack([nearest, few]), keep - 1, axis=1)[:, :keep]


def _rows(x: ArrayLike | FeatureRows, name: str) -> FeatureRows:
    return x if isinstance(x, FeatureRows) else FeatureRows.of_array(x, name)


def _require_k(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise ValueError(f"k is {k}; with {n} features it must lie in 1..{n - 1}")
