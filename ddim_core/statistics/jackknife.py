"""The delete-one-group jackknife: standard error, bias and interval of any estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Jackknife:
    """An estimate from G groups, its standard error and its bias-corrected twin.

    Attributes:
        value: theta, on all groups.
        bias_corrected: theta freed of its bias of order 1/n.
        se: Standard error, of both.
        half_width: Of the 95 % interval, Student t at G - 1 degrees of freedom.
        groups: G.
    """

    value: float
    bias_corrected: float
    se: float
    half_width: float
    groups: int

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    @property
    def bias_corrected_low(self) -> float:
        return self.bias_corrected - self.half_width

    @property
    def bias_corrected_high(self) -> float:
        return self.bias_corrected + self.half_width


def jackknife(
    theta: float, leave_one_out: Sequence[float], sizes: Sequence[int] | None = None
) -> Jackknife:
    """Judges an estimate by leaving out one group at a time.

        pseudo_j = h_j theta - (h_j - 1) loo_j,    h_j = n / m_j
        bias_corrected = sum_j pseudo_j / h_j
        se^2 = (1/G) sum_j (pseudo_j - bias_corrected)^2 / (h_j - 1)

    At equal sizes this is the plain jackknife: bias_corrected = G theta - (G - 1) mean(loo),
    se^2 = (G - 1)/G sum (loo_j - mean(loo))^2.

    Source: Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal m".

    Args:
        theta: The estimate from all groups.
        leave_one_out: [G] estimates, each without one group.
        sizes: m_j, members per group; equal when None.

    Raises:
        ValueError: If there are fewer than 2 groups, a size is below 1, the lengths differ, or a
            value is not finite.
    """
    loo = np.asarray(leave_one_out, dtype=np.float64)
    groups = loo.size
    if groups < 2:
        raise ValueError(f"a jackknife needs at least 2 groups, not {groups}")
    members = np.ones(groups) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if members.shape != loo.shape or members.min() < 1.0:
        raise ValueError(f"sizes is {sizes}; it must hold {groups} numbers of at least 1")
    if not (np.isfinite(theta) and np.isfinite(loo).all()):
        raise ValueError("an estimate is not finite; the jackknife needs finite estimates")
    h = members.sum() / members
    pseudo = h * theta - (h - 1.0) * loo
    bias_corrected = float((pseudo / h).sum())
    se = float(np.sqrt(np.mean((pseudo - bias_corrected) ** 2 / (h - 1.0))))
    return Jackknife(float(theta), bias_corrected, se, half_width(se, groups), groups)


@dataclass(frozen=True)
class TwoSided:
    """An estimate from two independent samples, freed of the bias of both, with its interval."""

    value: float
    low: float
    high: float


def two_sided(a: Jackknife, b: Jackknife) -> TwoSided:
    """Joins the jackknives of one estimate over either sample.

    Biases and variances add up; Student's t has the degrees of freedom of Welch and Satterthwaite,
    (se_a^2 + se_b^2)^2 / (se_a^4 / (G_a - 1) + se_b^4 / (G_b - 1)).

    Args:
        a: Leaving out groups of the one sample.
        b: The same estimate, leaving out groups of the other.
    """
    from scipy.special import stdtrit

    value = a.bias_corrected + b.bias_corrected - (a.value + b.value) / 2.0
    variances = np.array([a.se**2, b.se**2])
    total = float(variances.sum())
    if total == 0.0:
        return TwoSided(value, value, value)
    shares, groups = variances / total, np.array([a.groups, b.groups])
    dof = 1.0 / float((shares**2 / (groups - 1.0)).sum())
    half = float(stdtrit(dof, 0.5 + LEVEL / 2)) * np.sqrt(total)
    return TwoSided(value, value - half, value + half)


def half_width(se: float, groups: int) -> float:
    """Of a 95 % interval from a jackknife over G groups: Student t at G - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(groups - 1, 0.5 + LEVEL / 2)) * se
