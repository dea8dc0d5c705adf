"""Precision and recall as ADM's evaluator has them: by distances in half precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.statistics.rows import FeatureRows, check_columns, places

BLOCK = 10_000  # rows and columns of which the evaluator takes distances at once
TILE = 1000  # of these, here: 2 MB of halves
LARGEST = 65_504.0  # of float16
Halves = NDArray[np.float16]
Single = NDArray[np.float32]


def half_precision_recall(
    reference: FeatureRows, generated: FeatureRows, k: int = 3
) -> tuple[float, float]:
    """Takes the shares of `precision_recall` from squared distances rounded to float16.

        |x|^2 - 2 x.y + |y|^2, every term and every sum of two rounded to float16

    The evaluator takes distances so, a block of 10,000 x 10,000 at once, or in float32 where one
    of a block's is not finite. Sums over features are taken in float32 and then rounded, as
    graphics cards do; on other machines its rounding, and with it some images, differ. Neighbours
    at exactly the same rounded distance are many, and all count.

    Source: guided-diffusion/evaluations/evaluator.py, `ManifoldEstimator`, `DistanceBlock`.

    Memory: three tiles of 1,000 x 1,000 and the k nearest of each row.

    Args:
        reference: Features [m, d] of the real images, m > k.
        generated: Features [n, d], n > k.
        k: Neighbours.

    Returns:
        Precision and recall.

    Raises:
        ValueError: If d differs, or there are too few rows.
    """
    check_columns(reference, generated)
    if min(len(reference), len(generated)) <= k:
        raise ValueError(
            f"there are {len(generated)} and {len(reference)} features; {k} neighbours need more"
        )
    real_radii, made_radii = _radii(reference, k), _radii(generated, k)
    precise = np.zeros(len(generated), dtype=np.bool_)
    recalled = np.zeros(len(reference), dtype=np.bool_)
    for i, j, distances in _distances(reference, generated):
        recalled[i] |= (distances <= made_radii[j]).any(axis=1)
        precise[j] |= (distances <= real_radii[i, None]).any(axis=0)
    return float(precise.mean()), float(recalled.mean())


def _radii(rows: FeatureRows, k: int) -> Single:
    nearest = np.full((len(rows), k + 1), np.inf, dtype=np.float32)
    for i, _, distances in _distances(rows, rows):
        few = distances
        if few.shape[1] > k + 1:
            few = np.partition(distances, k, axis=1)[:, : k + 1]
        both = np.hstack([nearest[i], few])
        nearest[i] = np.partition(both, k, axis=1)[:, : k + 1]
    radii: Single = nearest.max(axis=1)
    return radii


def _distances(a: FeatureRows, b: FeatureRows) -> Iterator[tuple[slice, slice, Single]]:
    """All tiles of distances, with the places of their rows in a and in b."""
    for block_a in _cut(0, len(a), BLOCK):
        for block_b in _cut(0, len(b), BLOCK):
            take = _by_halves if _is_finite(a, block_a, b, block_b) else _by_singles
            for i in _cut(block_a.start, block_a.stop, TILE):
                x = a.read(i.start, i.stop)
                for j in _cut(block_b.start, block_b.stop, TILE):
                    yield i, j, take(x, b.read(j.start, j.stop))


def _cut(start: int, stop: int, size: int) -> list[slice]:
    if size == BLOCK:
        return [slice(at, min(at + size, stop)) for at in range(start, stop, size)]
    return [slice(start + s.start, start + s.stop) for s in places(stop - start, size)]


def _is_finite(a: FeatureRows, i: slice, b: FeatureRows, j: slice) -> bool:
    """Whether no distance of a block is too large for a half; by a bound, else by all of them."""
    longest = [
        max(float(_squares(x.read(t.start, t.stop)).max()) for t in _cut(s.start, s.stop, TILE))
        for x, s in ((a, i), (b, j))
    ]
    if sum(length**0.5 for length in longest) ** 2 < LARGEST:
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        return all(
            bool(np.isfinite(_by_halves(a.read(s.start, s.stop), b.read(t.start, t.stop))).all())
            for s in _cut(i.start, i.stop, TILE)
            for t in _cut(j.start, j.stop, TILE)
        )


def _squares(rows: NDArray[Any]) -> Single:
    singles = rows.astype(np.float32)
    lengths: Single = np.einsum("id,id->i", singles, singles)
    return lengths


def _by_halves(x: NDArray[Any], y: NDArray[Any]) -> Single:
    a, b = x.astype(np.float16), y.astype(np.float16)
    of_a, of_b = _half_norms(a), _half_norms(b)
    products = (a.astype(np.float32) @ b.astype(np.float32).T).astype(np.float16)
    made = (of_a[:, None] - np.float16(2.0) * products) + of_b
    return np.maximum(made, np.float16(0.0)).astype(np.float32)


def _half_norms(rows: Halves) -> Halves:
    squares = (rows * rows).astype(np.float32)
    norms: Halves = squares.sum(axis=1).astype(np.float16)
    return norms


def _by_singles(x: NDArray[Any], y: NDArray[Any]) -> Single:
    a, b = x.astype(np.float32), y.astype(np.float32)
    made = (_squares(a)[:, None] - np.float32(2.0) * (a @ b.T)) + _squares(b)
    return np.maximum(made, np.float32(0.0))
