"""Holm's correction: by hand, in the order given, of p-values alone."""

from __future__ import annotations

import numpy as np
import pytest

from ddim_core.statistics.holm import holm


def test_holm_by_hand_keeps_the_order_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan])
def test_a_p_value_outside_zero_to_one_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        holm([0.5, bad])
