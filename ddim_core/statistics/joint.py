"""Differences between all cells of a grid at once, from the jackknife groups that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Joint:
    """Estimates of k cells and how they scatter together.

    Attributes:
        values: [k] the estimates.
        influence: [k, G] what group j of the images moves in each: the pseudo-value less its mean,
            over sqrt(h_j - 1), h_j = n / m_j. A cell's squared standard error is the mean square of
            its row; that of a difference, of the difference of two rows.
    """

    values: Floats
    influence: Floats

    @property
    def groups(self) -> int:
        return int(self.influence.shape[1])

    @cached_property
    def differences(self) -> Floats:
        """[k, k] values[i] - values[j]."""
        return self.values[:, None] - self.values[None, :]

    @cached_property
    def paired(self) -> Floats:
        """[k, k] standard errors of the differences, of shared groups."""
        rows = [np.sqrt(np.mean((row - self.influence) ** 2, axis=1)) for row in self.influence]
        return np.array(rows)

    @cached_property
    def unpaired(self) -> Floats:
        """[k, k] standard errors that the differences would have with independent seeds."""
        squares = np.mean(self.influence**2, axis=1)
        return np.asarray(np.sqrt(squares[:, None] + squares[None, :]))

    @cached_property
    def alone(self) -> Floats:
        """[k] standard errors of the values."""
        return np.asarray(np.sqrt(np.mean(self.influence**2, axis=1)))

    def quantile(self, n_tests: int, level: float) -> float:
        """Returns how many standard errors n_tests intervals reach that hold together.

        Student's t at G - 1 degrees of freedom and `level / n_tests` (Bonferroni): whatever the
        estimates' dependence, the chance that any of n_tests intervals misses is at most `level`.
        """
        from scipy.special import stdtrit

        return float(stdtrit(self.groups - 1, 1.0 - level / (2.0 * max(n_tests, 1))))

    def reach(self, n_tests: int, level: float) -> Floats:
        """Returns [k, k] half widths of intervals of differences, of which n_tests hold
        together."""
        return self.quantile(n_tests, level) * self.paired

    def p_values(self, n_tests: int) -> Floats:
        """Returns [k, k] two-sided p-values of the differences, each times n_tests, at most 1."""
        from scipy.special import stdtr

        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.abs(self.differences) / self.paired
        t = np.where(self.differences == 0.0, 0.0, t)
        return np.asarray(np.minimum(1.0, 2.0 * n_tests * stdtr(self.groups - 1, -t)))


def joint(
    values: Sequence[float],
    thetas: Sequence[float],
    leave_one_out: Sequence[Sequence[float]],
    sizes: Sequence[int],
) -> Joint:
    """Puts cells side by side whose groups of images share their noise.

    Source: Busing, Meijer and van der Leeden 1999, as `jackknife`; the square root of the mean
    square of a difference's influence is the standard error that `paired_difference` gives it.

    Args:
        values: [k] the estimates that are compared.
        thetas: [k] the estimates to which `leave_one_out` belong; those before a correction of
            bias where `values` are corrected.
        leave_one_out: [k, G] estimates without each group.
        sizes: [G] members of each group.

    Raises:
        ValueError: If there are fewer than 2 groups, lengths differ, or a value is not finite.
    """
    lengths = {len(row) for row in leave_one_out} | {len(sizes)}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(f"the cells have {sorted(lengths)} groups; all need as many, at least 2")
    loo, theta = np.asarray(leave_one_out, np.float64), np.asarray(thetas, np.float64)[:, None]
    if not (np.isfinite(loo).all() and np.isfinite(theta).all() and np.isfinite(values).all()):
        raise ValueError("an estimate is not finite; intervals need finite estimates")
    h = np.sum(sizes) / np.asarray(sizes, np.float64)
    pseudo = h * theta - (h - 1.0) * loo
    mean = (pseudo / h).sum(axis=1, keepdims=True)
    return Joint(np.asarray(values, np.float64), (pseudo - mean) / np.sqrt(h - 1.0))
