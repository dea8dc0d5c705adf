"""Whether an interval can be trusted: how many images its spread rests on."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

FEW = 1.25
FEW_DIRECTIONS, CURVED = 9.0, 0.03


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


def rests_on_few(carried: float, n: int) -> bool:
    """Tells whether so few images carry the spread that Student's t cannot be relied on.

    The bound is 5/4 sqrt(n). Found by simulation: in worlds whose intervals cover as they say, it
    is undercut in under 5 % of draws, in most of those with heavy tails in over 95 %
    (docs/comparisons.md).

    Args:
        carried: Of `carried_by`.
        n: Images.
    """
    return carried < FEW * np.sqrt(n)


def lies_flat(directions: float, curved: float) -> bool:
    """Tells whether a set lies so near its reference, in so few directions, that its distance
    scatters like one square and no Student's t.

    Of a distance (p - p_r)^2, such as that of the share p of one kind of image, the jackknife sees
    2 (p - p_r), which vanishes where p is right. Over many directions squares average out. The
    bounds, 9 directions and 3 % of the variance, were found by simulation (docs/comparisons.md).

    Args:
        directions, curved: Of `KernelScore`.
    """
    return directions < FEW_DIRECTIONS and curved > CURVED
