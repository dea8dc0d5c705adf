"""The mean of one number an image, with its interval, and the difference of two such means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.paired import PairedDifference, paired_difference

Floats = NDArray[np.float64]
FEWEST_PROMPTS = 5


@dataclass(frozen=True)
class MeanScore:
    """The mean over a cell's images.

    Attributes:
        value: The mean.
        low, high: Its 95 % interval; None of one image.
        leave_one_out: The mean without each group of images, for paired tests; None where there
            are fewer than two groups.
        group_sizes: Images in each of these groups: those of the cell's other scores, or, where
            prompts have several images, groups of whole prompts.
    """

    value: float
    low: float | None
    high: float | None
    leave_one_out: list[float] | None
    group_sizes: list[int]


def mean_score(
    values: ArrayLike, group_sizes: Sequence[int], n_prompts: int | None = None
) -> MeanScore:
    """The mean of a cell's images, image k being of prompt k mod n_prompts.

    Images of one prompt are not independent. With several images a prompt, and 5 prompts or more,
    the interval is over the prompts' means: of such prompts. Else it is over images: of other noise
    for the same few prompts, or, where each image has a prompt of its own, of both. Student t; at
    equal counts this is mean +- t s / sqrt(units), else the jackknife that leaves out a prompt.

    What is left out for paired tests are the cell's own groups of neighbouring images; with several
    images a prompt these would share their prompts, and so at most as many groups of whole prompts
    are left out instead.

    Args:
        values: [n], in order of image index.
        group_sizes: Images in each of the cell's groups, in order of image index.
        n_prompts: Prompts that the images were drawn for, in turn; None where there are none.

    Raises:
        ValueError: If there are none, a value is not finite, or the groups are of other images.
    """
    x = _finite(values)
    if sum(group_sizes) != len(x):
        raise ValueError(f"groups have {sum(group_sizes)} images; there are {len(x)} values")
    value = float(x.mean())
    sums, sizes = _sums(x, units_of(len(x), n_prompts))
    low = high = None
    if len(sizes) > 1:
        found = jackknife(value, _without(x.sum(), sums, sizes).tolist(), sizes.tolist())
        low, high = found.low, found.high
    sums, sizes = _sums(x, _groups(len(x), group_sizes, n_prompts))
    loo = _without(x.sum(), sums, sizes).tolist() if len(sizes) > 1 else None
    return MeanScore(value, low, high, loo, sizes.tolist())


def image_by_image(
    a: ArrayLike, b: ArrayLike, n_prompts: int | None = None
) -> PairedDifference | None:
    """The mean of a - b over images of the same prompts and the same x_T, and its test.

    Differences of one image have less spread than images have: that is why hundreds of them decide.
    Units are as of `mean_score`: prompts' means, or images.

    Args:
        a, b: [n] of two cells, in order of image index.
        n_prompts: As of `mean_score`.

    Returns:
        None where there is one unit alone.

    Raises:
        ValueError: If they are not of as many images, or a value is not finite.
    """
    x, y = _finite(a), _finite(b)
    if len(x) != len(y):
        raise ValueError(f"the cells have {len(x)} and {len(y)} values; pairs need equal")
    units = units_of(len(x), n_prompts)
    if units.max() == 0:
        return None
    (x_sums, sizes), (y_sums, _) = _sums(x, units), _sums(y, units)
    return paired_difference(
        _without(x.sum(), x_sums, sizes).tolist(), _without(y.sum(), y_sums, sizes).tolist(),
        float(x.mean()), float(y.mean()), sizes.tolist(),
    )  # fmt: skip


def units_of(n: int, n_prompts: int | None) -> NDArray[np.int64]:
    """The unit that each of n images belongs to, int64 [n]: its prompt, or itself."""
    return np.arange(n, dtype=np.int64) % (_repeated(n, n_prompts) or n)


def _groups(n: int, group_sizes: Sequence[int], n_prompts: int | None) -> NDArray[np.int64]:
    """The group that each of n images is left out with, int64 [n]."""
    prompts = _repeated(n, n_prompts)
    if not prompts:
        return np.repeat(np.arange(len(group_sizes), dtype=np.int64), group_sizes)
    return units_of(n, n_prompts) * min(prompts, len(group_sizes)) // prompts


def _repeated(n: int, n_prompts: int | None) -> int:
    """How many prompts n images were drawn for, where these have several images; else 0."""
    return n_prompts if n_prompts is not None and FEWEST_PROMPTS <= n_prompts < n else 0


def _finite(values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise ValueError(
            f"there are {int((~np.isfinite(x)).sum())} values that are not finite, of shape "
            f"{x.shape}; it must be one finite number an image"
        )
    return x


def _sums(x: Floats, units: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    return np.bincount(units, weights=x).astype(np.float64), np.bincount(units).astype(np.int64)


def _without(total: float, sums: Floats, sizes: NDArray[np.int64]) -> Floats:
    """The mean without each unit in turn."""
    rest: Floats = (total - sums) / (sizes.sum() - sizes)
    return rest
