"""Precision and recall of generated features by k-nearest-neighbour manifolds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.moments import Floats, check_features

_DISTANCES_AT_ONCE = 8_000_000  # per chunk: 64 MB


@dataclass(frozen=True, eq=False)
class Manifold:
    """The reference's side of `precision_recall`, taken once for many comparisons.

    Attributes:
        members: Features [m, d], float64, relative to `origin`.
        origin: Their mean [d]: distances do not change with it, but lose fewer digits near it.
        squared_radii: [m] squared distances to each member's k-th nearest neighbour.
        k: Neighbours.
    """

    members: Floats
    origin: Floats
    squared_radii: Floats
    k: int

    @classmethod
    def of(cls, reference: ArrayLike, k: int = 3) -> Manifold:
        """Measures a reference [m, d].

        Raises:
            ValueError: If features are empty, not 2-D or not finite, or k is not in 1..m - 1.
        """
        members = check_features(reference, "reference").astype(np.float64)
        _require_k(k, len(members))
        origin = members.mean(axis=0)
        members -= origin
        return cls(members, origin, _squared_radii(members, k), k)


def precision_recall(
    reference: ArrayLike | Manifold, generated: ArrayLike, k: int = 3
) -> tuple[float, float]:
    """Takes the shares of each set that lie inside the other set's manifold.

    A set's manifold is the union of the balls around its members, each reaching as far as the
    member's k-th nearest neighbour in the set. Precision is the share of generated features
    inside the reference's manifold (fidelity), recall the share of reference features inside the
    generated one (coverage); both depend on n, m and k.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eqs. 1 and 2.

    Args:
        reference: Features [m, d], or what `Manifold.of` made of them (its k then counts).
        generated: Features [n, d].
        k: Neighbours, 1 <= k < min(n, m).

    Raises:
        ValueError: If features are empty, not 2-D or not finite, d differs, or k does not fit.
    """
    manifold = reference if isinstance(reference, Manifold) else Manifold.of(reference, k)
    real, real_radii = manifold.members, manifold.squared_radii
    made = check_features(generated, "generated").astype(np.float64)
    if real.shape[1] != made.shape[1]:
        raise ValueError(
            f"reference has {real.shape[1]} columns and generated {made.shape[1]}; they must agree"
        )
    _require_k(manifold.k, len(made))
    made -= manifold.origin
    made_radii = _squared_radii(made, manifold.k)
    n_precise, recalled = 0, np.zeros(len(real), dtype=bool)
    start = 0
    for distances in _squared_distances(made, real):
        stop = start + len(distances)
        n_precise += int((distances <= real_radii).any(axis=1).sum())
        recalled |= (distances <= made_radii[start:stop, None]).any(axis=0)
        start = stop
    return n_precise / len(made), float(recalled.mean())


def _require_k(k: int, n: int) -> None:
    if not 1 <= k < n:
        raise ValueError(f"k is {k}; with {n} features it must lie in 1..{n - 1}")


def _squared_radii(members: Floats, k: int) -> Floats:
    # The k-th neighbour is at place k: the member itself comes first, at 0.
    radii = [np.partition(d, k, axis=1)[:, k] for d in _squared_distances(members, members)]
    return np.concatenate(radii)


def _squared_distances(points: Floats, members: Floats) -> Iterator[Floats]:
    point_norms = np.einsum("id,id->i", points, points)
    member_norms = np.einsum("id,id->i", members, members)
    rows = max(1, _DISTANCES_AT_ONCE // len(members))
    # Below this |p|^2 - 2 p.m + |m|^2 is rounding: equal rows must come out at exactly 0.
    rounding = 4.0 * np.finfo(np.float64).eps * np.sqrt(points.shape[1])
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        squared = (-2.0 * points[part]) @ members.T
        squared += point_norms[part, None]
        squared += member_norms
        least = point_norms[part, None] + member_norms.min()
        # Few are near enough to 0 to be rounding: look at these alone.
        near = np.nonzero(squared <= rounding * (least + np.ptp(member_norms)))
        norms = point_norms[part][near[0]] + member_norms[near[1]]
        squared[near] = np.where(squared[near] <= rounding * norms, 0.0, squared[near])
        yield squared
