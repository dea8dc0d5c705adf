"""CMMD: the maximum mean discrepancy of CLIP features under a Gaussian kernel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import Floats, check_features
from ddim_core.statistics.pairs import Pairs, pairs_across, pairs_within
from ddim_core.statistics.rows import FeatureRows, check_columns

SIGMA = 10.0
SCALE = 1000.0


class Cmmd(NamedTuple):
    """The value with its 95 % interval by the jackknife over groups of generated images."""

    value: float
    low: float
    high: float


def cmmd(x: ArrayLike, y: ArrayLike, sigma: float = SIGMA, scale: float = SCALE) -> float:
    """Compares two sets of features; CMMD where they are `unit` CLIP embeddings.

        scale (mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j)),
        k(a, b) = exp(-|a - b|^2 / (2 sigma^2))

    The means take i = j in, as google-research's cmmd does: never negative, biased upwards by
    about scale / sigma^2 (1/n + 1/m) for unit vectors.

    Source: Jayasumana et al. 2024 (arXiv:2401.09603); its CLIP is ViT-L/14 at 336 pixels, so that
    numbers of another CLIP compare among themselves only.

    Args:
        x: Generated features [n, d].
        y: Reference features [m, d].
        sigma: Width of the kernel.
        scale: Makes the number readable.

    Raises:
        ValueError: If features are empty, not 2-D or not finite, or d differs.
    """
    a, b = FeatureRows.of_array(x, "x"), FeatureRows.of_array(y, "y")
    check_columns(a, b)
    whole = [slice(0, len(a))]
    within = _within(a, whole, sigma)[0, 0] / len(a) ** 2
    own = _within(b, [slice(0, len(b))], sigma)[0, 0] / len(b) ** 2
    across = _across(a, whole, b, sigma)[0] / (len(a) * len(b))
    return float(scale * (within + own - 2.0 * across))


def cmmd_interval(
    groups: Sequence[NDArray[Any]], y: ArrayLike | FeatureRows, on: Float64 = ON_CPU
) -> Cmmd:
    """`cmmd` of all groups together, with its interval by leaving out one group at a time.

    Memory: what the groups and y hold, and a few blocks of rows; both may be made when asked for.

    Args:
        groups: Generated features [n_g, d] of at least 2 groups, in order of image index.
        y: Reference features [m, d].
        on: What computes.

    Raises:
        ValueError: If there are fewer than 2 groups, or as `cmmd`.
    """
    a = FeatureRows.of(groups, "x")
    b = y if isinstance(y, FeatureRows) else FeatureRows.of_array(y, "y")
    check_columns(a, b)
    places = [slice(start, stop) for start, stop in pairwise(a.starts)]
    sizes = np.diff(a.starts)
    blocks, across = _within(a, places, SIGMA, on), _across(a, places, b, SIGMA, on) / len(b)
    own = float(_within(b, [slice(0, len(b))], SIGMA, on)[0, 0]) / len(b) ** 2
    left, n_left = blocks.sum() - 2.0 * blocks.sum(axis=1) + blocks.diagonal(), len(a) - sizes
    value = blocks.sum() / len(a) ** 2 + own - 2.0 * across.sum() / len(a)
    loo = left / n_left**2 + own - 2.0 * (across.sum() - across) / n_left
    found = jackknife(SCALE * value, (SCALE * loo).tolist(), sizes.tolist())
    return Cmmd(found.value, max(found.low, 0.0), found.high)


class UnitRows(Sequence[Floats]):
    """`unit` features in given places, made when they are asked for."""

    def __init__(self, features: FeatureRows, places: Sequence[slice]) -> None:
        self._features, self._places = features, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        place = self._places[index]
        return unit(self._features.read(place.start, place.stop))


def unit(features: ArrayLike) -> Floats:
    """Divides each row by its length, as CMMD takes CLIP's embeddings.

    Raises:
        ValueError: If a row is 0, or a number is not finite.
    """
    rows = check_features(features, "features").astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (lengths > 0.0).all():
        raise ValueError(f"features[{int(lengths.argmin())}] is 0 and has no direction")
    return rows / lengths


def _within(x: FeatureRows, groups: Sequence[slice], sigma: float, on: Float64 = ON_CPU) -> Floats:
    """[g, h]: the kernel's sum over all pairs of a member of g and one of h."""
    sums = np.zeros((len(groups), len(groups)))
    for pairs in pairs_within(x, on=on):
        values = _kernel(pairs, sigma)
        if pairs.i == pairs.j:
            on.fill_diagonal(values, 1.0)  # a row and itself, without rounding
        (g, rows), (h, columns) = (_cuts(groups, place) for place in (pairs.i, pairs.j))
        part = on.got(on.sums(on.sums(values, rows, 0), columns, 1))
        sums[g, h] += part
        if pairs.i != pairs.j:
            sums[h, g] += part.T
    return sums


def _across(
    x: FeatureRows, groups: Sequence[slice], y: FeatureRows, sigma: float, on: Float64 = ON_CPU
) -> Floats:
    """[g]: the kernel's sum over all pairs of a member of g and a row of y."""
    sums = np.zeros(len(groups))
    for pairs in pairs_across(x, y, on=on):
        g, rows = _cuts(groups, pairs.i)
        sums[g] += np.add.reduceat(on.got(_kernel(pairs, sigma).sum(axis=1)), rows)
    return sums


def _cuts(groups: Sequence[slice], place: slice) -> tuple[slice, list[int]]:
    """Which of consecutive groups a range of rows meets, and where each begins in it."""
    met = [i for i, g in enumerate(groups) if g.start < place.stop and place.start < g.stop]
    return slice(met[0], met[-1] + 1), [max(groups[i].start - place.start, 0) for i in met]


def _kernel(pairs: Pairs, sigma: float) -> Any:
    return pairs.on.exp(pairs.squared_distances() / (-2.0 * sigma**2))
