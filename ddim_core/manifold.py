"""Precision and recall of generated features by k-nearest-neighbour manifolds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.moments import Floats, check_features

_DISTANCES_AT_ONCE = 8_000_000  # per chunk: 64 MB


def precision_recall(reference: ArrayLike, generated: ArrayLike, k: int = 3) -> tuple[float, float]:
    """Takes the shares of each set that lie inside the other set's manifold.

    A set's manifold is the union of the balls around its members, each reaching as far as the
    member's k-th nearest neighbour in the set. Precision is the share of generated features
    inside the reference's manifold (fidelity), recall the share of reference features inside the
    generated one (coverage); both depend on n, m and k.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eqs. 1 and 2.

    Args:
        reference: Features [m, d].
        generated: Features [n, d].
        k: Neighbours, 1 <= k < min(n, m).

    Raises:
        ValueError: If features are empty, not 2-D or not finite, d differs, or k does not fit.
    """
    real = check_features(reference, "reference").astype(np.float64)
    made = check_features(generated, "generated").astype(np.float64)
    if real.shape[1] != made.shape[1]:
        raise ValueError(
            f"reference has {real.shape[1]} columns and generated {made.shape[1]}; they must agree"
        )
    fewest = min(len(real), len(made))
    if not 1 <= k < fewest:
        raise ValueError(f"k is {k}; with {fewest} features it must lie in 1..{fewest - 1}")
    # Distances do not change with the origin, but lose fewer digits near the points.
    origin = real.mean(axis=0)
    real -= origin
    made -= origin
    return _share_inside(made, real, k), _share_inside(real, made, k)


def _share_inside(points: Floats, members: Floats, k: int) -> float:
    # The k-th neighbour is at place k: the member itself comes first, at 0.
    radii = [np.partition(d, k, axis=1)[:, k] for d in _squared_distances(members, members)]
    squared_radius = np.concatenate(radii)
    inside = [(d <= squared_radius).any(axis=1) for d in _squared_distances(points, members)]
    return float(np.concatenate(inside).mean())


def _squared_distances(points: Floats, members: Floats) -> Iterator[Floats]:
    point_norms = np.einsum("id,id->i", points, points)
    member_norms = np.einsum("id,id->i", members, members)
    rows = max(1, _DISTANCES_AT_ONCE // len(members))
    # Below this |p|^2 - 2 p.m + |m|^2 is rounding: equal rows must come out at exactly 0.
    rounding = 4.0 * np.finfo(np.float64).eps * np.sqrt(points.shape[1])
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        norms = point_norms[part, None] + member_norms
        squared = norms - 2.0 * (points[part] @ members.T)
        squared[squared <= rounding * norms] = 0.0
        yield squared
