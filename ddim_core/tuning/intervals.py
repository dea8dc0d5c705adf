"""Between which noise levels guidance helps, searched over where a run asks the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np

from ddim_core.tuning.evaluations import Distances
from ddim_core.tuning.search import LEAST_GAIN

Interval = tuple[float, float]
"""Low and high noise level, both with."""
PLACES = 8  # in a run, at which guidance may begin or end
DIGITS = 3  # of a level between two calls, unless they lie closer


def search_interval(
    levels: Sequence[float],
    noisiest: float,
    figure: Callable[[Interval | None], Distances],
    start: Interval | None,
    most: int,
) -> tuple[Interval | None, int]:
    """Finds the first and the last call of a run to guide, by looking at all pairs; of a run of
    more than eight calls, at those of eight of them.

    Source of guiding between two levels alone: Kynkaanniemi et al. 2024 (arXiv:2404.07724).

    Args:
        levels: Noise levels at which the run asks the network.
        noisiest: The noisiest level that the network was trained on.
        figure: What is made small as the mean of one value an image, guided between two levels;
            None is at all of them.
        start: What is kept unless another one is better.
        most: Intervals that may be looked at besides.

    Returns:
        The best interval, None for guidance at all levels; and how many were looked at.
    """
    falling = sorted(set(levels), reverse=True)
    held = [start is None or start[0] <= level <= start[1] for level in falling]
    ends = np.unique(np.linspace(0, len(falling) - 1, PLACES).round().astype(int)).tolist()
    others = [
        interval_of(falling, first, last, noisiest)
        for first, last in combinations_with_replacement(ends, 2)
        if held != [first <= i <= last for i in range(len(falling))]
    ][:most]
    best, least = start, float(np.mean(figure(start)))
    for interval in others:
        found = float(np.mean(figure(interval)))
        if found < least - LEAST_GAIN * least:
            best, least = interval, found
    return best, len(others)


def interval_of(
    falling: Sequence[float], first: int, last: int, noisiest: float
) -> Interval | None:
    """Returns noise levels between which some of a run's levels lie, and no other of them.

    Args:
        falling: The run's levels, noisiest first.
        first, last: The places of those inside, both with; all of them are None.
        noisiest: What the run could begin at: the high end where the first level is inside.
    """
    if (first, last) == (0, len(falling) - 1):
        return None
    high = max(noisiest, falling[0]) if first == 0 else _between(falling[first - 1], falling[first])
    low = 0.0 if last == len(falling) - 1 else _between(falling[last], falling[last + 1])
    return low, high


def _between(above: float, below: float) -> float:
    """A level about halfway (in its logarithm), in few digits."""
    middle = math.sqrt(above * below) if below > 0.0 else above / 2.0
    short = (float(f"{middle:.{digits}g}") for digits in range(DIGITS, 17))
    return next((level for level in short if below < level < above), middle)
