"""A place where the Frechet distance is known, for tests of what estimates it."""

from __future__ import annotations

import numpy as np

from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments


class World:
    """A Gaussian reference known exactly, and generated features whose true distance is known."""

    def __init__(self, d: int, difference: float = 0.3) -> None:
        self.rng = np.random.default_rng(11)
        reference_variance = np.exp(0.7 * self.rng.normal(size=d))
        variance = reference_variance * np.exp(difference * self.rng.normal(size=d))
        rotation, _ = np.linalg.qr(self.rng.normal(size=(d, d)))
        self.factor = rotation * np.sqrt(variance)
        # Built from its parts: an infinite reference has no count.
        self.reference = Reference(
            np.zeros(d), float(reference_variance.sum()), np.diag(np.sqrt(reference_variance))
        )
        covariance = self.factor @ self.factor.T
        exact = FeatureMoments(100 * d, np.zeros(d), covariance * (100 * d - 1))
        self.truth = self.reference.distance(exact)

    def draw(self, n: int, kind: str = "gauss") -> np.ndarray:
        """Draws features [n, d]: Gaussian, `t6` (independent heavy tails), or `ellip` (images of
        a random length each, whose features are dependent though uncorrelated)."""
        d = len(self.factor)
        if kind == "t6":
            noise = self.rng.standard_t(6, size=(n, d)) / np.sqrt(1.5)
        else:
            noise = self.rng.normal(size=(n, d))
        if kind == "ellip":
            noise *= np.sqrt(self.rng.gamma(10.0, 0.1, size=(n, 1)))
        return noise @ self.factor.T
