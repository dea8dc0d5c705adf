"""Features whose true Frechet distance is known, to see what estimates and tests are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments, Floats


@dataclass(frozen=True)
class World:
    """A reference known exactly, and generated features whose distance to it is known.

    Attributes:
        reference: N(0, C_r), C_r diagonal with a lognormal spectrum.
        factor: [d, d]; generated features are its product with noise of unit covariance.
        truth: The distance at infinitely many images.
    """

    reference: Reference
    factor: Floats
    truth: float

    @classmethod
    def of(cls, d: int, difference: float = 0.3, rotated: bool = True, seed: int = 11) -> World:
        """Draws a world; `difference` spreads the log ratio of the two spectra, 0 is equality.

        Not rotated, both covariances share their eigenvectors and the distance is far smaller.
        """
        rng = np.random.default_rng(seed)
        real = np.exp(0.7 * rng.normal(size=d))
        variance = real * np.exp(difference * rng.normal(size=d))
        rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
        factor = (rotation if rotated else np.eye(d)) * np.sqrt(variance)
        # Built from its parts: an infinite reference has no count.
        reference = Reference(np.zeros(d), float(real.sum()), np.diag(np.sqrt(real)))
        exact = FeatureMoments(100 * d, np.zeros(d), factor @ factor.T * (100 * d - 1))
        return cls(reference, factor, reference.distance(exact))

    def draw(self, n: int, rng: np.random.Generator, kind: str = "gauss") -> Floats:
        """Draws [n, d]: Gaussian, `t6` (independent heavy tails) or `ellip` (a common length)."""
        d = len(self.factor)
        if kind == "t6":
            noise = rng.standard_t(6, size=(n, d)) / np.sqrt(1.5)
        else:
            noise = rng.normal(size=(n, d))
        if kind == "ellip":
            noise *= np.sqrt(rng.gamma(10.0, 0.1, size=(n, 1)))
        return noise @ self.factor.T
