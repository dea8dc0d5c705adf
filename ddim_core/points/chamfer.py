"""The Chamfer distance between two clouds of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.statistics.moments import check_features


def chamfer_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Sums the squared distances from every point to the nearest of the other cloud.

        CD(a, b) = sum_i min_j |a_i - b_j|^2 + sum_j min_i |a_i - b_j|^2

    Sums, not means (Fan et al. 2017, arXiv:1612.00603): compare only at equal point counts, and
    against the floor of two independent samples of the truth, which is not 0.

    Args:
        a: Points [n, d] of low dimension: a tree search, n log m.
        b: Points [m, d].

    Raises:
        ValueError: If a cloud is empty, not 2-D or not finite, or the dimensions differ.
    """
    from scipy.spatial import cKDTree

    of_a = check_features(a, "a").astype(np.float64)
    of_b = check_features(b, "b").astype(np.float64)
    if of_a.shape[1] != of_b.shape[1]:
        raise ValueError(
            f"points have {of_a.shape[1]} and {of_b.shape[1]} dimensions; they must agree"
        )
    to_b, _ = cKDTree(of_b).query(of_a)
    to_a, _ = cKDTree(of_a).query(of_b)
    return float(np.sum(to_b**2) + np.sum(to_a**2))
