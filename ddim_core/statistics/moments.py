"""Feature moments: count, mean and scatter, which merge by addition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.devices.float64 import ON_CPU, Float64

Floats = NDArray[np.float64]

_ROWS_AT_ONCE = 4096  # bounds the float64 copy: 64 MB at d = 2048


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """The first two moments of n feature vectors of length d, in float64.

    Attributes:
        count: n, at least 1.
        mean: [d].
        scatter: [d, d], sum over rows of (x - mean)(x - mean)^T; symmetric.

    Raises:
        ValueError: If the count is below 1, the shapes do not fit, or a number is not finite.
    """

    count: int
    mean: Floats
    scatter: Floats

    def __post_init__(self) -> None:
        mean = np.asarray(self.mean, dtype=np.float64)
        scatter = np.asarray(self.scatter, dtype=np.float64)
        if self.count < 1:
            raise ValueError(f"count is {self.count}; moments need at least 1 feature vector")
        if mean.ndim != 1 or scatter.shape != (mean.size, mean.size):
            raise ValueError(
                f"mean is {mean.shape} and scatter {scatter.shape}; they must be (d,) and (d, d)"
            )
        if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
            raise ValueError("mean or scatter overflows float64; feature values are too large")
        object.__setattr__(self, "count", int(self.count))
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "scatter", scatter)

    @classmethod
    def from_features(cls, x: ArrayLike, on: Float64 = ON_CPU) -> FeatureMoments:
        """Takes the moments of features [n, d], any float type; `on` computes.

        Rows are measured from the first row before anything is summed: a large common mean then
        costs no digits, and a constant column has a scatter of exactly 0.

        Raises:
            ValueError: If x is not 2-D, is empty, or holds a number that is not finite.
        """
        rows = check_features(x, "features")
        return cls.of_chunks(len(rows), lambda start, stop: rows[start:stop], on)

    @classmethod
    def of_chunks(
        cls, count: int, read: Callable[[int, int], NDArray[Any]], on: Float64 = ON_CPU
    ) -> FeatureMoments:
        """The same, with the same bits, of rows that are read some thousands at a time.

        Args:
            count: n, how many rows there are.
            read: Returns rows start..stop - 1, of real numbers that are finite.
            on: What computes.
        """
        origin = read(0, 1)[0].astype(np.float64)
        places = [(i, min(i + _ROWS_AT_ONCE, count)) for i in range(0, count, _ROWS_AT_ONCE)]
        offset = sum((read(*place) - origin).sum(axis=0) for place in places) / count
        scatter = np.zeros((origin.size, origin.size))
        for place in places:
            centred = on.put((read(*place) - origin) - offset)
            scatter += on.got(centred.T @ centred)
        return cls(count, origin + offset, scatter)

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        """Merges two disjoint groups; a fixed order of merging gives equal bits.

            S = S_a + S_b + (n_a n_b / n) delta delta^T,   delta = mean_b - mean_a

        Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance".
        """
        if not isinstance(other, FeatureMoments):
            return NotImplemented
        if self.mean.size != other.mean.size:
            raise ValueError(
                f"features of {self.mean.size} and {other.mean.size} columns cannot be merged"
            )
        count = self.count + other.count
        delta = other.mean - self.mean
        scatter = np.outer(delta * (self.count * other.count / count), delta)
        scatter += self.scatter
        scatter += other.scatter
        return FeatureMoments(count, self.mean + delta * (other.count / count), scatter)

    @property
    def covariance(self) -> Floats:
        """scatter / (n - 1), [d, d].

        Raises:
            ValueError: If n is 1.
        """
        if self.count < 2:
            raise ValueError("a covariance of 1 feature vector is undefined; it needs at least 2")
        return self.scatter / (self.count - 1)


def merge(groups: Sequence[FeatureMoments]) -> FeatureMoments:
    """Merges groups from left to right.

    Raises:
        ValueError: If there is no group.
    """
    if not groups:
        raise ValueError("there are no moments to merge; give at least 1 group")
    return reduce(add, groups)


def leave_one_out(groups: Sequence[FeatureMoments]) -> Iterator[FeatureMoments]:
    """Yields, for each group in order, the moments of all other groups.

    The other groups are merged rather than the one subtracted from the total: sums of positive
    semi-definite matrices lose no digits, a difference does when one group holds most of the
    scatter. Halving shares the merges: G log2 G of them, log2 G held at a time.

    Raises:
        ValueError: If there are fewer than 2 groups.
    """
    if len(groups) < 2:
        raise ValueError(f"leaving one out needs at least 2 groups, not {len(groups)}")
    half = len(groups) // 2
    yield from _leave_one_out(merge(groups[half:]), groups[:half])
    yield from _leave_one_out(merge(groups[:half]), groups[half:])


def _leave_one_out(
    outside: FeatureMoments, groups: Sequence[FeatureMoments]
) -> Iterator[FeatureMoments]:
    if len(groups) == 1:
        yield outside
        return
    half = len(groups) // 2
    yield from _leave_one_out(outside + merge(groups[half:]), groups[:half])
    yield from _leave_one_out(outside + merge(groups[:half]), groups[half:])


def check_features(x: ArrayLike, name: str) -> NDArray[Any]:
    """Returns x as a real array [n, d] of its own type, with n and d at least 1.

    Raises:
        ValueError: If it is not, or a number is not finite (names the first bad row and column).
    """
    rows = np.asarray(x)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"{name} has shape {rows.shape}; it must be [n, d] with n, d >= 1")
    if rows.dtype.kind not in "fiu":
        raise ValueError(f"{name} has type {rows.dtype}; it must hold real numbers")
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{name}[{row}, {column}] is {rows[row, column]}; every feature must be finite"
        )
    return rows
