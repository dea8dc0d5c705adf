"""The kernel distance (KID): the squared maximum mean discrepancy of a polynomial kernel."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.pairs import Pairs, pairs_across, pairs_within
from ddim_core.statistics.rows import FeatureRows, check_columns

SUBSETS, SEED = 100, 2020
Bools = NDArray[np.bool_]


class Kernel(NamedTuple):
    """k(x, y) = (gamma x.y + coef0)^degree; gamma None is 1/d."""

    degree: int = 3
    gamma: float | None = None
    coef0: float = 1.0

    def __call__(self, pairs: Pairs) -> Any:
        """The kernel of all pairs, [len(a), len(b)]."""
        base = pairs.products()
        base *= 1.0 / pairs.a.centred.shape[1] if self.gamma is None else self.gamma
        base += self.coef0
        # By multiplication, which NumPy's power does not do; ten times as fast.
        values = base if self.degree == 1 else base * base
        for _ in range(self.degree - 2):
            values *= base
        return values

    def of_others(self, pairs: Pairs) -> Any:
        """The same for pairs of one set, with 0 for a row and itself."""
        values = self(pairs)
        if pairs.i == pairs.j:
            pairs.on.fill_diagonal(values, 0.0)
        return values


class Subsets(NamedTuple):
    """Which rows of n and of m features each subset holds, [subsets, size] both."""

    of_x: np.ndarray
    of_y: np.ndarray


def kid(
    x: ArrayLike | FeatureRows,
    y: ArrayLike | FeatureRows,
    subsets: int = SUBSETS,
    subset_size: int = 1000,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    seed: int = SEED,
) -> tuple[float, float]:
    """Averages the unbiased MMD^2 over random subsets: (mean, standard deviation over subsets).

    Subsets are drawn without replacement, x before y, from a RandomState(seed), and the standard
    deviation divides by the number of subsets: torch-fidelity's numbers and defaults, in float64.
    The standard deviation describes one subset, not the mean, whose subsets overlap; the mean's
    own standard error is that of `kernel_score`.

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
    a, b = _pair(x, y)
    drawn = draw_subsets(len(a), len(b), subsets, subset_size, seed)
    kernel = Kernel(degree, gamma, coef0)
    if max(len(a), len(b)) ** 2 > subsets * subset_size**2:  # whole matrices would cost more
        chosen = zip(*drawn, strict=True)
        values = np.array([_mmd2(_take(a, i), _take(b, j), kernel) for i, j in chosen])
    else:
        in_a, in_b = indicators(drawn.of_x, len(a)), indicators(drawn.of_y, len(b))
        values = (
            within_sums(a, in_a, kernel) / (subset_size * (subset_size - 1))
            + within_sums(b, in_b, kernel) / (subset_size * (subset_size - 1))
            - 2.0 * across_sums(a, b, in_a, in_b, kernel) / subset_size**2
        )
    return float(values.mean()), float(values.std())


def usual_subset_size(n: int, m: int) -> int:
    """The usual 1000, or as many as the smaller set has: say so beside the number."""
    return min(1000, n, m)


def draw_subsets(n: int, m: int, subsets: int, size: int, seed: int = SEED) -> Subsets:
    """Draws which of n and of m features each subset holds, as torch-fidelity does.

    Raises:
        ValueError: If there is no subset, or it does not fit.
    """
    if subsets < 1:
        raise ValueError(f"subsets is {subsets}; it must be at least 1")
    if not 2 <= size <= min(n, m):
        raise ValueError(
            f"subset_size is {size}; with {n} and {m} features it must lie in 2..{min(n, m)}"
        )
    return _drawn(n, m, subsets, size, seed)


@lru_cache(maxsize=2)  # cells of a grid share theirs
def _drawn(n: int, m: int, subsets: int, size: int, seed: int) -> Subsets:
    random = np.random.RandomState(seed)
    of_x, of_y = np.empty((subsets, size), dtype=int), np.empty((subsets, size), dtype=int)
    for s in range(subsets):  # filled one by one: a choice is a view of all numbers below n
        of_x[s] = random.choice(n, size, replace=False)
        of_y[s] = random.choice(m, size, replace=False)
    return Subsets(of_x, of_y)


def mmd2_unbiased(
    x: ArrayLike | FeatureRows, y: ArrayLike | FeatureRows, kernel: Kernel | None = None
) -> float:
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
    a, b = _pair(x, y)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"an unbiased MMD needs at least 2 features, not {min(len(a), len(b))}")
    return _mmd2(a, b, kernel or Kernel())


def _mmd2(a: FeatureRows, b: FeatureRows, kernel: Kernel) -> float:
    n, m = len(a), len(b)
    one_a, one_b = np.ones((n, 1), dtype=np.bool_), np.ones((m, 1), dtype=np.bool_)
    within_a = within_sums(a, one_a, kernel)[0] / (n * (n - 1))
    within_b = within_sums(b, one_b, kernel)[0] / (m * (m - 1))
    across = across_sums(a, b, one_a, one_b, kernel)[0] / (n * m)
    return float(within_a + within_b - 2.0 * across)


def indicators(chosen: np.ndarray, n: int) -> Bools:
    """Subsets [s, size] of n rows as columns, [n, s]: whether a row is in a subset.

    One byte each: as numbers, 100 subsets of 50,000 rows would outweigh all else in memory.
    """
    columns = np.zeros((n, len(chosen)), dtype=np.bool_)
    for s, rows in enumerate(chosen):
        columns[rows, s] = True
    return columns


def numbers(members: Bools) -> Floats:
    """Ones and zeros of a block of indicators."""
    return members.astype(np.float64)


def within_sums(x: FeatureRows, in_x: Bools, kernel: Kernel, on: Float64 = ON_CPU) -> Floats:
    """The kernel's sum over each subset's pairs of different rows, subsets as `indicators`."""
    total = np.zeros(in_x.shape[1])
    for pairs in pairs_within(x, on=on):
        sums = kernel.of_others(pairs) @ on.put(numbers(in_x[pairs.j]))
        part = subset_sums(in_x[pairs.i], sums, on)
        total += part if pairs.i == pairs.j else 2.0 * part
    return total


def across_sums(x: FeatureRows, y: FeatureRows, in_x: Bools, in_y: Bools, kernel: Kernel) -> Floats:
    """The kernel's sum over each subset's pairs of a row of x and one of y."""
    total = np.zeros(in_x.shape[1])
    for pairs in pairs_across(x, y):
        total += subset_sums(in_x[pairs.i], kernel(pairs) @ numbers(in_y[pairs.j]))
    return total


def subset_sums(members: Bools, sums: Any, on: Float64 = ON_CPU) -> Floats:
    """Adds up what each subset's members have in its column of `sums`, both [rows, subsets]."""
    return on.got(on.column_dots(on.put(numbers(members)), sums))


def within_subsets(
    x: FeatureRows, chosen: np.ndarray, kernel: Kernel, on: Float64 = ON_CPU
) -> Floats:
    """The same for subsets [s, size] given by their rows, by whichever way is cheaper."""
    if len(x) ** 2 <= chosen.size * chosen.shape[1]:
        return within_sums(x, indicators(chosen, len(x)), kernel, on)
    one = np.ones((chosen.shape[1], 1), dtype=np.bool_)
    return np.array([within_sums(_take(x, rows), one, kernel, on)[0] for rows in chosen])


def _take(x: FeatureRows, chosen: np.ndarray) -> FeatureRows:
    rows = x.take(chosen).astype(np.float64)
    return FeatureRows([rows], (0, len(rows)), x.columns)


def _pair(
    x: ArrayLike | FeatureRows, y: ArrayLike | FeatureRows
) -> tuple[FeatureRows, FeatureRows]:
    a = x if isinstance(x, FeatureRows) else FeatureRows.of_array(x, "x")
    b = y if isinstance(y, FeatureRows) else FeatureRows.of_array(y, "y")
    check_columns(a, b)
    return a, b
