"""Whether an interval can be trusted: how many images its spread rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

FEW = 1.25
INFINITE, SLOPE = 0.5, 0.25
LEAST = 200  # images whose largest influences are a tail
FEW_DIRECTIONS, CURVED = 10.0, 0.03


def carried_by(influence: ArrayLike) -> float:
    """Tells how many images carry the variance of an estimate, between 1 and n.

        (sum_i v_i^2)^2 / sum_i v_i^4,    v_i = influence_i - mean

    That is n over the kurtosis: n if all pull alike, 1 if one pulls alone. It is the participation
    ratio of physics, and Kish's effective sample size with v_i^2 as weights.

    Args:
        influence: [n] how much each image moves the estimate, on any scale.

    Returns:
        n where no image moves it.
    """
    v = np.asarray(influence, dtype=np.float64)
    v = v - v.mean()
    largest = np.abs(v).max()
    if largest == 0.0:
        return float(v.size)
    squares = (v / largest) ** 2  # no power of a tiny or huge number is lost
    return float(squares.sum() ** 2 / (squares * squares).sum())


def tail_index(influence: ArrayLike) -> float | None:
    """Tells how slowly the largest influences fall off: 0 as a bell curve's, 1/2 or more as those
    of no finite variance, 1 or more of no finite mean.

        (1/k) sum_{i <= k} ln(v_(i) / v_(k+1)),    v = |influence - median|, k = 2 sqrt(n)

    with v_(1) the largest.

    Source: Hill 1975, "A simple general approach to inference about the tail of a distribution".

    Args:
        influence: [n] how much each image moves the estimate, on any scale.

    Returns:
        None with fewer than 200 images. Where no more than k images move the estimate, the index
        of these; 0 where one or none does.
    """
    v = np.asarray(influence, dtype=np.float64)
    if v.size < LEAST:
        return None
    apart = np.sort(np.abs(v - np.median(v)))[::-1]
    k = min(int(np.ceil(2.0 * np.sqrt(v.size))), int((apart > 0.0).sum()) - 1)
    return float(np.log(apart[:k]).mean() - np.log(apart[k])) if k > 0 else 0.0


def rests_on_few(carried: float, n: int, tail: float | None = None) -> bool:
    """Tells whether so few images carry the spread that Student's t cannot be relied on.

        tail > 1/2 + 1/4 ln(carried / sqrt(n))

    Where sqrt(n) images carry the spread it is said of an index of which no variance is finite, of
    one as much smaller as they are fewer. With an index unknown, the bound is 5/4 sqrt(n) images.
    Found by simulation in some worlds, and judged in others (docs/comparisons.md).

    Args:
        carried: Of `carried_by`.
        n: Images.
        tail: Of `tail_index`.
    """
    few = carried / np.sqrt(n)
    return bool(few < FEW if tail is None else tail > INFINITE + SLOPE * np.log(few))


def lies_flat(directions: float, curved: float) -> bool:
    """Tells whether a set lies so near its reference, in so few directions, that its distance
    scatters like one square and no Student's t.

    Of a distance (p - p_r)^2, such as that of the share p of one kind of image, the jackknife sees
    2 (p - p_r), which vanishes where p is right. Over many directions squares average out. The
    bounds, 10 directions and 3 % of the variance, were found by simulation (docs/comparisons.md).

    Args:
        directions, curved: Of `KernelScore`.
    """
    return directions < FEW_DIRECTIONS and curved > CURVED
