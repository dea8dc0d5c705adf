"""CMMD: the maximum mean discrepancy of CLIP features under a Gaussian kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import Floats, check_features

SIGMA = 10.0
SCALE = 1000.0
_ROWS_AT_ONCE = 1024


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
    a, b = _pair(x, y)
    within = _row_sums(a, a, sigma).mean() / len(a) + _row_sums(b, b, sigma).mean() / len(b)
    across = _row_sums(a, b, sigma).mean() / len(b)
    return float(scale * (within - 2.0 * across))


def cmmd_interval(groups: Sequence[NDArray[Any]], y: ArrayLike) -> Cmmd:
    """`cmmd` of all groups together, with its interval by leaving out one group at a time.

    Args:
        groups: Generated features [n_g, d] of at least 2 groups, in order of image index.
        y: Reference features [m, d].

    Raises:
        ValueError: If there are fewer than 2 groups, or as `cmmd`.
    """
    a, b = _pair(np.concatenate(groups), y)
    sizes = np.array([len(group) for group in groups])
    starts = np.concatenate([[0], sizes[:-1].cumsum()])
    # [g, h]: the kernel's sum over all pairs of a member of g and one of h
    blocks = np.stack(
        [
            np.add.reduceat(_column_sums(a[start : start + size], a), starts)
            for start, size in zip(starts, sizes, strict=True)
        ]
    )
    across = np.add.reduceat(_row_sums(a, b, SIGMA), starts) / len(b)
    own = float(_row_sums(b, b, SIGMA).mean() / len(b))
    left, n_left = blocks.sum() - 2.0 * blocks.sum(axis=1) + blocks.diagonal(), len(a) - sizes
    value = blocks.sum() / len(a) ** 2 + own - 2.0 * across.sum() / len(a)
    loo = left / n_left**2 + own - 2.0 * (across.sum() - across) / n_left
    found = jackknife(SCALE * value, (SCALE * loo).tolist(), sizes.tolist())
    return Cmmd(found.value, max(found.low, 0.0), found.high)


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


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    a = check_features(x, "x").astype(np.float64)
    b = check_features(y, "y").astype(np.float64)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features have {a.shape[1]} and {b.shape[1]} columns; they must agree")
    return a, b


def _row_sums(x: Floats, y: Floats, sigma: float) -> Floats:
    """sum_j k(x_i, y_j) for every i, a thousand rows at a time."""
    parts = [x[i : i + _ROWS_AT_ONCE] for i in range(0, len(x), _ROWS_AT_ONCE)]
    return np.concatenate([_kernel(part, y, sigma).sum(axis=1) for part in parts])


def _column_sums(x: Floats, y: Floats) -> Floats:
    """sum_i k(x_i, y_j) for every j."""
    return sum(
        (_kernel(x[i : i + _ROWS_AT_ONCE], y, SIGMA).sum(axis=0)
         for i in range(0, len(x), _ROWS_AT_ONCE)),
        start=np.zeros(len(y)),
    )  # fmt: skip


def _kernel(x: Floats, y: Floats, sigma: float) -> Floats:
    squared = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2.0 * (x @ y.T)
    values: Floats = np.exp(np.maximum(squared, 0.0) / (-2.0 * sigma**2))
    return values
