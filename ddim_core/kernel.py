"""The kernel distance (KID): the squared maximum mean discrepancy of a polynomial kernel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.moments import Floats, check_features

_ROWS_AT_ONCE = 1024  # of a kernel matrix: bounds memory to 8 kB per column


class Kernel(NamedTuple):
    """k(x, y) = (gamma x.y + coef0)^degree; gamma None is 1/d."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def __call__(self, x: Floats, y: Floats) -> Floats:
        gamma = 1.0 / x.shape[-1] if self.gamma is None else self.gamma
        base: Floats = (x * gamma) @ y.T
        base += self.coef0
        return self._power(base)

    def diagonal(self, x: Floats) -> Floats:
        gamma = 1.0 / x.shape[-1] if self.gamma is None else self.gamma
        return self._power(np.einsum("id,id->i", x * gamma, x) + self.coef0)

    def _power(self, base: Floats) -> Floats:
        """base^degree by multiplication, which NumPy's power does not do; ten times as fast."""
        values = base if self.degree == 1 else base * base
        for _ in range(self.degree - 2):
            values *= base
        return values


def kid(
    x: ArrayLike,
    y: ArrayLike,
    subsets: int = 100,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    seed: int = 2020,
) -> tuple[float, float]:
    """Averages the unbiased MMD^2 over random subsets: (mean, standard deviation over subsets).

    Subsets are drawn without replacement, x before y, from a RandomState(seed), and the standard
    deviation divides by the number of subsets: torch-fidelity's numbers and defaults, in float64.
    The standard deviation describes one subset, not the mean, whose subsets overlap.

    Source: Binkowski et al. 2018 (arXiv:1801.01401), section 4.

    Args:
        x: Generated features [n, d].
        y: Reference features [m, d].
        subsets: How many subsets.
        subset_size: Features of each set in a subset, 2..min(n, m); see `usual_subset_size`.
        degree, gamma, coef0: The kernel's, see `Kernel`.
        seed: Of the subsets.

    Raises:
        ValueError: If features are empty, not 2-D or not finite, d differs, or a subset does not
            fit.
    """
    a, b = _check_pair(x, y)
    fewest = min(len(a), len(b))
    if subsets < 1:
        raise ValueError(f"subsets is {subsets}; it must be at least 1")
    if not 2 <= subset_size <= fewest:
        raise ValueError(
            f"subset_size is {subset_size}; with {len(a)} and {len(b)} features it must lie in "
            f"2..{fewest}"
        )
    kernel = Kernel(degree, gamma, coef0)
    random = np.random.RandomState(seed)
    drawn = [
        [random.choice(len(rows), subset_size, replace=False) for rows in (a, b)]
        for _ in range(subsets)
    ]
    if max(len(a), len(b)) ** 2 > subsets * subset_size**2:  # whole matrices would cost more
        values = np.array([mmd2_unbiased(a[i], b[j], kernel) for i, j in drawn])
    else:
        in_a, in_b = np.zeros((len(a), subsets)), np.zeros((len(b), subsets))
        for subset, (i, j) in enumerate(drawn):
            in_a[i, subset] = in_b[j, subset] = 1.0
        values = _mmd2(a, b, in_a, in_b, kernel)
    return float(values.mean()), float(values.std())


def usual_subset_size(n: int, m: int) -> int:
    """The usual 1000, or as many as the smaller set has: say so beside the number."""
    return min(1000, n, m)


def mmd2_unbiased(x: ArrayLike, y: ArrayLike, kernel: Kernel | None = None) -> float:
    """Estimates MMD^2 from all pairs, without bias; it may be negative.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Source: Gretton et al. 2012, eq. 3.

    Args:
        x: Features [n, d], n >= 2.
        y: Features [m, d], m >= 2.
        kernel: The cubic kernel of KID when None.

    Raises:
        ValueError: If features are too few, not 2-D or not finite, or d differs.
    """
    a, b = _check_pair(x, y)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an unbiased MMD needs at least 2 features, not {min(len(a), len(b))}")
    everything = np.ones((len(a), 1)), np.ones((len(b), 1))
    return float(_mmd2(a, b, *everything, kernel or Kernel())[0])


def _mmd2(x: Floats, y: Floats, in_x: Floats, in_y: Floats, kernel: Kernel) -> Floats:
    """MMD^2 of each subset s, given as columns of ones and zeros, [n, s] and [m, s]."""
    n, m = in_x.sum(axis=0), in_y.sum(axis=0)
    within_x = _pair_sums(x, x, in_x, in_x, kernel) - kernel.diagonal(x) @ in_x
    within_y = _pair_sums(y, y, in_y, in_y, kernel) - kernel.diagonal(y) @ in_y
    across = _pair_sums(x, y, in_x, in_y, kernel)
    value: Floats = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2.0 * across / (n * m)
    return value


def _pair_sums(x: Floats, y: Floats, in_x: Floats, in_y: Floats, kernel: Kernel) -> Floats:
    """The kernel's sum over each subset's pairs: sum_ij in_x[i, s] k(x_i, y_j) in_y[j, s]."""
    total = np.zeros(in_x.shape[1])
    for start in range(0, len(x), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        total += np.einsum("is,is->s", in_x[rows], kernel(x[rows], y) @ in_y)
    return total


def _check_pair(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    a = check_features(x, "x").astype(np.float64)
    b = check_features(y, "y").astype(np.float64)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features have {a.shape[1]} and {b.shape[1]} columns; they must agree")
    return a, b
