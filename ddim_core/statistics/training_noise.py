"""How far apart two trainings of one recipe score, beyond what the sampling of images explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class TrainingNoise:
    """The spread of a recipe's scores over k trainings that differ in their seed alone.

        score_i = mean + training_i + sampling_i
        S^2 = sum_i (score_i - mean)^2 / (k - 1),   E S^2 = tau^2 + c / 2
        c = the mean over pairs i < j of se_ij^2,   tau^2 = max(S^2 - c / 2, 0)

    tau is the training's own standard deviation; se_ij is the standard error of score_i - score_j
    over the shared noise, so that what the noise moves in all scores alike counts in neither.

    Two new trainings of the recipe differ by D, with variance 2 E S^2, and D / (sqrt(2) S) follows
    Student's t at k - 1 degrees of freedom whatever tau is: no estimate of tau enters, and none
    that was cut off at 0. A pair of other recipes may be known less well than the twins are; what
    its se^2 exceeds c by is added:

        p = 2 P(t_{k-1} > |D| / sqrt(2 S^2 + max(se^2 - c, 0)))

    Two trainings of one recipe are so called different in 5 % of cases, for any tau and k. Who
    takes the larger of this p-value and the one by sampling alone errs less often still, and never
    calls a difference of that size real because the twins happened to lie close. It holds for
    scores that are normal over trainings; skewed ones are measured in benchmarks/training_noise.py.

    Source: the analysis of variance's estimate of a variance component, Searle, Casella and
    McCulloch 1992, "Variance Components", chapter 3; that training moves FID more than sampling
    does: "The FID Lottery" (arXiv:2606.20536).

    Attributes:
        trainings: k, at least 2.
        variance: S^2, in squared units of the score.
        sampling: c, likewise.
    """

    trainings: int
    variance: float
    sampling: float

    @classmethod
    def of(cls, scores: Sequence[float], errors: Sequence[float]) -> TrainingNoise:
        """Estimates it.

        Args:
            scores: [k], one a training.
            errors: Standard errors of the difference of each two of them.

        Raises:
            ValueError: If there are fewer than 2 scores, not one error a pair, or a number is not
                finite.
        """
        values, se = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
        k = values.size
        if k < 2:
            raise ValueError(f"{k} training tells no spread; give at least 2")
        if se.size != k * (k - 1) // 2:
            raise ValueError(f"{se.size} errors are given; {k} trainings have {k * (k - 1) // 2}")
        if not (np.isfinite(values).all() and np.isfinite(se).all()):
            raise ValueError("a score or its error is not finite")
        return cls(k, float(values.var(ddof=1)), float((se**2).mean()))

    @property
    def sd(self) -> float:
        """tau, the standard deviation of a score between trainings, without the sampling's."""
        return self._tau(1.0)

    @property
    def low(self) -> float:
        """The lower end of tau's 95 % interval: S^2 (k - 1) / chi^2 less c / 2, at least 0."""
        return self._tau(self._chi_square(0.5 + LEVEL / 2))

    @property
    def high(self) -> float:
        """Its upper end; with 2 trainings 32 times S, with 3 six times, with 8 twice."""
        return self._tau(self._chi_square(0.5 - LEVEL / 2))

    @property
    def factor(self) -> float:
        """Student's t at k - 1 degrees of freedom: 12.7 for 2 trainings, 4.3 for 3, 2.8 for 5, 2.4
        for 8, 1.96 for very many. Few trainings tell little of their spread, and this says so."""
        from scipy.special import stdtrit

        return float(stdtrit(self.trainings - 1, 0.5 + LEVEL / 2))

    def reach(self, se: float = 0.0) -> float:
        """The largest difference, in units of the score, that two trainings of the recipe have in
        95 % of cases: `factor` times the spread of a difference.

        Args:
            se: Of the difference that is judged, by its sampling alone.
        """
        return self.factor * self._spread(se)

    def p_value(self, difference: float, se: float = 0.0, margin: float = 0.0) -> float:
        """Two-sided, of a difference that two trainings of the recipe may have.

        Args:
            difference, se: Of two scores, and its standard error by sampling alone.
            margin: Largest difference that does not count besides.
        """
        from scipy.special import stdtr

        beyond, spread = max(abs(difference) - margin, 0.0), self._spread(se)
        if spread == 0.0:
            return 0.0 if beyond else 1.0
        return float(2.0 * stdtr(self.trainings - 1, -beyond / spread))

    def _spread(self, se: float) -> float:
        """Of the difference of two trainings' scores: sqrt(2) S, or wider."""
        return float(np.sqrt(2.0 * self.variance + max(se**2 - self.sampling, 0.0)))

    def _tau(self, over: float) -> float:
        return float(np.sqrt(max(self.variance / over - self.sampling / 2.0, 0.0)))

    def _chi_square(self, share: float) -> float:
        """A quantile of chi^2 / (k - 1)."""
        from scipy.special import chdtri

        return float(chdtri(self.trainings - 1, 1.0 - share)) / (self.trainings - 1)
