"""Which calls of a run to guide: found by trying, between levels that hold them and no others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ddim_core.tuning.evaluations import Distances
from ddim_core.tuning.intervals import Interval, interval_of, search_interval

Figure = Callable[[Interval | None], Distances]
LEVELS = [157.0, 12.0, 3.0, 3.0, 0.9, 0.05]  # Heun's asks twice at one
FALLING = sorted(set(LEVELS), reverse=True)
GUIDED = [12.0, 3.0, 0.9]


def figure(guided: list[float]) -> tuple[list[Interval | None], Figure]:
    """A figure that is least where these levels are guided and no other; and what it was asked."""
    asked: list[Interval | None] = []

    def values(interval: Interval | None) -> Distances:
        asked.append(interval)
        inside = {v for v in LEVELS if interval is None or interval[0] <= v <= interval[1]}
        return np.full(4, 1.0 + len(inside ^ set(guided)))

    return asked, values


@pytest.mark.parametrize("guided", [GUIDED, LEVELS, [157.0], [0.05], [3.0], [157.0, 12.0]])
@pytest.mark.parametrize("start", [None, (0.5, 5.0), (0.0, 157.0)])
def test_the_calls_to_guide_are_found(guided: list[float], start: Interval | None) -> None:
    asked, values = figure(guided)
    found, n_tried = search_interval(LEVELS, 200.0, values, start, 100)
    inside = {v for v in LEVELS if found is None or found[0] <= v <= found[1]}
    assert inside == set(guided)
    assert len(asked) == n_tried + 1 <= 15  # each interval of five levels once
    assert asked[0] == start


def test_what_may_be_looked_at_is_bounded_and_levels_that_stay_keep_their_spelling() -> None:
    asked, values = figure([12.0])
    assert search_interval(LEVELS, 200.0, values, None, 0) == (None, 0)
    assert search_interval(LEVELS, 200.0, values, None, 2)[1] == 2
    assert len(asked) == 4  # and `start`, twice
    given = (4.123456, 99.0)  # holds the one that is best already
    assert search_interval(LEVELS, 200.0, values, given, 100)[0] == given
    nothing = (13.0, 14.0)
    assert search_interval(LEVELS, 200.0, values, nothing, 100)[0] == interval_of(FALLING, 1, 1, 1)
    assert search_interval([3.0, 3.0], 200.0, values, None, 100) == (None, 0)
    many = [float(2**i) for i in range(50, 0, -1)]
    assert search_interval(many, 2.0**50, lambda _: np.ones(2), None, 100) == (None, 35)


def test_levels_between_calls_are_short_and_close_ones_are_told_apart() -> None:
    falling = [157.0, 12.0, 3.0, 0.0]
    assert interval_of(falling, 0, 3, 200.0) is None
    assert interval_of(falling, 0, 1, 200.0) == (6.0, 200.0)
    assert interval_of(falling, 1, 3, 200.0) == (0.0, 43.4)
    assert interval_of(falling, 2, 2, 200.0) == (1.5, 6.0)
    close = [2.0000002, 2.0000001, 2.0]
    low, high = interval_of(close, 1, 1, 200.0) or (0.0, 0.0)
    assert 2.0 < low < 2.0000001 < high < 2.0000002
