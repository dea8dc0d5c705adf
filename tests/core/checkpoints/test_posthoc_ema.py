"""EDM2's post-hoc averages: its own coefficients, and what they reconstruct."""

from __future__ import annotations

import numpy as np
import pytest

from ddim_core.checkpoints.posthoc_ema import Average, posthoc_coefficients
from tests.core.edm_files import GOLDEN


def test_coefficients_are_those_of_edm2s_own_code() -> None:
    arrays = np.load(GOLDEN)
    kept = [Average(end, std) for end, std in zip(*arrays["phema/of"], strict=True)]
    for i, (end, std) in enumerate(zip(*arrays["phema/to"], strict=True)):
        found = posthoc_coefficients(kept, Average(end, std))
        # The solution of a system of condition 1e4, in float64
        np.testing.assert_allclose(found, arrays["phema/coefficients"][:, i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_an_average_that_was_kept_is_itself(std: float) -> None:
    kept = [Average(end, s) for end in (1.0, 2.0, 4.0) for s in (0.05, 0.1, 0.2)]
    wanted = Average(4.0, std)
    expected = [float(average == wanted) for average in kept]
    np.testing.assert_allclose(posthoc_coefficients(kept, wanted), expected, rtol=0, atol=1e-7)


def test_snapshots_give_the_average_that_training_would_have_kept() -> None:
    """Of a course of weights over 2000 steps, by a recursion that keeps each average exactly."""
    weights = np.cumsum(np.random.default_rng(0).normal(size=2000))

    def tracked(average: Average) -> float:
        held, gamma = weights[0], average.gamma
        for t in range(2, int(average.end) + 1):
            held += (1.0 - (1.0 - 1.0 / t) ** (gamma + 1.0)) * (weights[t - 1] - held)
        return float(held)

    kept = [Average(end, std) for end in range(250, 2001, 250) for std in (0.05, 0.1)]
    for std in (0.07, 0.15):
        wanted = Average(2000, std)
        found = posthoc_coefficients(kept, wanted) @ [tracked(average) for average in kept]
        # The nearest of the kept ones is off by several times that.
        assert abs(found - tracked(wanted)) < 0.05 * abs(tracked(kept[-1]) - tracked(wanted)) + 0.02


@pytest.mark.parametrize(("end", "std"), [(0.0, 0.1), (np.inf, 0.1), (1.0, 0.0), (1.0, 0.3)])
def test_what_is_no_average_is_refused(end: float, std: float) -> None:
    with pytest.raises(ValueError, match="an average"):
        Average(end, std)
