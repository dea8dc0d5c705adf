"""Chong and Forsyth's FID at infinite images, for comparison with `uncertainty`'s."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.frechet import Reference
from ddim_core.moments import FeatureMoments, check_features


def chong_forsyth(
    features: ArrayLike,
    reference: Reference,
    points: int = 15,
    fewest: int | None = None,
    seed: int = 0,
) -> float:
    """Extrapolates the Frechet distance to infinitely many generated images by a straight line.

    Plug-in distances of random subsets of n images, at `points` values of n from `fewest` to all,
    are regressed on 1/n by least squares; the intercept is the estimate. It takes the bias to be
    a / n exactly, which holds for d / n small: see docs/fid-infinity.md for what is left.

    Source: Chong and Forsyth 2020 (arXiv:1911.07023), algorithm 1 with simple random samples in
    place of Sobol ones; 15 points, from 5,000 of 50,000 images.

    Args:
        features: Generated features [n, d].
        reference: The reference.
        points: Values of n, at least 2.
        fewest: The smallest n, 2..n - 1; a tenth of n, as theirs, but at least 2, when None.
        seed: Of the subsets.

    Raises:
        ValueError: If there are too few points or images.
    """
    rows = check_features(features, "features")
    least = max(2, len(rows) // 10) if fewest is None else fewest
    if points < 2:
        raise ValueError(f"points is {points}; a line needs at least 2")
    if not 2 <= least < len(rows):
        raise ValueError(f"fewest is {least}; with {len(rows)} images it must lie below that, "
                         "and be at least 2")  # fmt: skip
    random = np.random.default_rng(seed)
    counts = np.linspace(least, len(rows), points).astype(int)
    distances = []
    for count in counts:
        chosen = random.choice(len(rows), count, replace=False)
        distances.append(reference.distance(FeatureMoments.from_features(rows[chosen])))
    _, intercept = np.polyfit(1.0 / counts, distances, 1)
    return float(intercept)
