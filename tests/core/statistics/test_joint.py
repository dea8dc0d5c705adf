"""Cells side by side: each pair's error is that of its own jackknife, whatever the sizes."""

from __future__ import annotations

import numpy as np
import pytest

from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.joint import joint
from ddim_core.statistics.paired import paired_difference, paired_difference_inf, uncorrected

SIZES = [30, 10, 50, 50, 20, 40]
LOO = 5.0 + np.random.default_rng(4).standard_normal((3, len(SIZES)))


def test_errors_and_p_values_are_those_of_each_pair_alone() -> None:
    values = [5.0, 5.4, 4.0]
    found = joint(values, values, LOO.tolist(), SIZES)
    for i in range(3):
        for j in range(3):
            pair = paired_difference(LOO[i], LOO[j], values[i], values[j], SIZES)
            assert found.differences[i, j] == pytest.approx(pair.value)
            assert found.paired[i, j] == pytest.approx(pair.se, rel=1e-12, abs=1e-12)
            assert found.p_values(1)[i, j] == pytest.approx(pair.p_value, rel=1e-9)
            ends = found.differences[i, j] + np.array([-1, 1]) * found.reach(7, 0.05)[i, j]
            assert ends == pytest.approx(pair.interval(7, len(SIZES)), rel=1e-9, abs=1e-12)
            alone = [jackknife(values[k], LOO[k], SIZES).se for k in (i, j)]
            assert found.unpaired[i, j] == pytest.approx(np.hypot(*alone), rel=1e-12)
    assert paired_difference(LOO[0], LOO[1], 5.0, 5.4, SIZES).interval(1, 6) == pytest.approx(
        (lambda p: (p.low, p.high))(paired_difference(LOO[0], LOO[1], 5.0, 5.4, SIZES)), rel=1e-9
    )


def test_values_that_are_corrected_keep_the_error_of_what_they_were_made_from() -> None:
    thetas = [5.1, 5.3]
    values = [jackknife(t, x, SIZES).bias_corrected for t, x in zip(thetas, LOO, strict=False)]
    solved = [uncorrected(v, x, SIZES) for v, x in zip(values, LOO, strict=False)]
    assert solved == pytest.approx(thetas)
    found = joint(values, solved, LOO[:2].tolist(), SIZES)
    pair = paired_difference_inf(LOO[0].tolist(), LOO[1].tolist(), *values, SIZES)
    assert found.paired[0, 1] == pytest.approx(pair.se, rel=1e-9)
    assert found.differences[0, 1] == pytest.approx(pair.value)


def test_cells_of_other_groups_or_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the cells have \[2, 3\] groups"):
        joint([1.0, 1.0], [1.0, 1.0], [[1.0, 1.0], [1.0, 1.0, 1.0]], [5, 5])
    with pytest.raises(ValueError, match="at least 2"):
        joint([1.0], [1.0], [[1.0]], [5])
    with pytest.raises(ValueError, match="not finite"):
        joint([1.0], [np.nan], [[1.0, 1.0]], [5, 5])
