"""What a Frechet distance needs of a set of features, for all rows and without each group.

In the reference's coordinates y = L_r^T (x - c) the generated covariance is L_r^T C L_r itself, so
each leave-one-out set costs one subtraction and one symmetric eigen-decomposition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ddim_core.devices.float64 import Float64
from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.rows import FeatureRows

_ROWS_AT_ONCE = 2048  # bounds the float64 copies: 64 MB at d = 2048
# Groups whose matrices take less than this together, 16 MB, keep them and are decomposed in one
# call: NumPy lets other threads run meanwhile, which neither it nor SciPy does for small ones.
_NUMBERS_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class Spread:
    """A set's moments as a distance to one reference sees them.

    Attributes:
        count: n, or of images that are no independent draws, how many they count for.
        mean: [d].
        trace: tr C.
        spectrum: The largest min(n - 1, rank) eigenvalues of L_r^T C L_r, at least 0.
    """

    count: float
    mean: Floats
    trace: float
    spectrum: Floats


def leave_one_out_spreads(
    features: FeatureRows, groups: Sequence[slice], reference: Reference
) -> Iterator[Spread]:
    """Yields the spread of all rows, and then of all but each group in turn.

    Sums are taken over rows and groups in order of index, so the bits do not depend on who made
    which shard first. A group is taken away from the sum of all; what that rounds is below eps
    times the whole, and so far below the scatter between the groups that it serves to judge.

    Memory, where the reference computes: with r its rank, four matrices [r, r] and a block of rows,
    and 48 MB where all groups are decomposed at once; or, with no more rows than r, one [n, r] and
    three [n, n].

    Args:
        features: [n, d].
        groups: Consecutive slices that cover the rows; at least 2 rows must stay without any one.
        reference: What they are compared with.
    """
    reference.check_columns(features.columns)
    origin = features.read(0, 1)[0].astype(np.float64)
    route = _by_gram if len(features) <= reference.factor.shape[1] else _by_scatter
    return route(features, groups, reference.factor, origin, reference.on)


@dataclass(frozen=True, eq=False)
class _Sums:
    """Count, sum and sum of squares of x - origin."""

    count: int
    total: Floats
    squares: float

    @classmethod
    def of(cls, rows: Any, on: Float64) -> _Sums:
        return cls(len(rows), on.got(rows.sum(axis=0)), on.dot(rows, rows))

    def __sub__(self, part: _Sums) -> _Sums:
        return _Sums(self.count - part.count, self.total - part.total, self.squares - part.squares)

    def __add__(self, part: _Sums) -> _Sums:
        return _Sums(self.count + part.count, self.total + part.total, self.squares + part.squares)

    def spread(self, origin: Floats, eigenvalues: Floats, rank: int) -> Spread:
        """Puts a spread together; eigenvalues ascending, of the scatter over count - 1."""
        offset = self.total / self.count
        centred = max(self.squares - self.count * float(offset @ offset), 0.0)
        keep = min(self.count - 1, rank, eigenvalues.size)
        spectrum = np.maximum(eigenvalues[eigenvalues.size - keep :], 0.0)
        return Spread(self.count, origin + offset, centred / (self.count - 1), spectrum)


def _by_scatter(
    features: FeatureRows, groups: Sequence[slice], factor: Floats, origin: Floats, on: Float64
) -> Iterator[Spread]:
    rank, basis = factor.shape[1], on.put(factor)
    together = len(groups) * rank**2 <= _NUMBERS_AT_ONCE
    at_once = len(groups) if together else min(len(groups), on.at_once)

    @lru_cache(maxsize=len(groups) if together else 0)
    def part(g: int) -> tuple[_Sums, Any]:
        return _group_sums(features, groups[g], basis, origin, on)

    whole, scatter = _Sums(0, np.zeros(features.columns), 0.0), on.put(np.zeros((rank, rank)))
    for g in range(len(groups)):
        sums, part_scatter = part(g)
        whole += sums
        scatter += part_scatter
    (values,) = _eigenvalues([whole], scatter[None] + 0.0, basis, on)
    yield whole.spread(origin, values, rank)
    if len(groups) < 2:
        return
    left = on.put(np.empty((at_once, rank, rank)))
    for first in range(0, len(groups), at_once):
        rests = []
        for i, g in enumerate(range(first, min(first + at_once, len(groups)))):
            sums, part_scatter = part(g)
            rests.append(whole - sums)
            left[i] = scatter
            left[i] -= part_scatter
        found = _eigenvalues(rests, left[: len(rests)], basis, on)
        for rest, values in zip(rests, found, strict=True):
            yield rest.spread(origin, values, rank)


def _group_sums(
    features: FeatureRows, group: slice, basis: Any, origin: Floats, on: Float64
) -> tuple[_Sums, Any]:
    rank, o = basis.shape[1], on.put(origin)
    sums, scatter = _Sums(0, np.zeros(features.columns), 0.0), on.put(np.zeros((rank, rank)))
    for start in range(group.start, group.stop, _ROWS_AT_ONCE):
        rows = on.put(features.read(start, min(start + _ROWS_AT_ONCE, group.stop))) - o
        inside = rows @ basis
        sums += _Sums.of(rows, on)
        scatter += inside.T @ inside
    return sums, scatter


def _eigenvalues(sums: Sequence[_Sums], scatters: Any, basis: Any, on: Float64) -> Floats:
    """Of covariances [k, r, r] in the reference's coordinates, ascending: [k, r].

    Overwrites the scatters about the origin.
    """
    for one, scatter in zip(sums, scatters, strict=True):
        inside = on.put(one.total) @ basis
        scatter -= (inside / one.count)[:, None] * inside
        scatter /= one.count - 1
    return on.eigenvalues(scatters)


def _by_gram(
    features: FeatureRows, groups: Sequence[slice], factor: Floats, origin: Floats, on: Float64
) -> Iterator[Spread]:
    """With n <= rank: the same nonzero eigenvalues from the n x n products of rows."""
    rows = on.put(features.read(0, len(features))) - on.put(origin)
    inside = rows @ on.put(factor)
    products, rank = on.got(inside @ inside.T), factor.shape[1]
    whole = _Sums.of(rows, on)
    yield whole.spread(origin, _gram_eigenvalues(products, on), rank)
    if len(groups) < 2:
        return
    for group in groups:
        stay = np.r_[0 : group.start, group.stop : len(features)]
        rest = whole - _Sums.of(rows[group], on)
        yield rest.spread(origin, _gram_eigenvalues(products[np.ix_(stay, stay)], on), rank)


def _gram_eigenvalues(products: Floats, on: Float64) -> Floats:
    means = products.mean(axis=0)
    centred = products - means - means[:, None] + means.mean()
    return on.eigenvalues(on.put(centred / (len(products) - 1)))
