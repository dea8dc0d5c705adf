"""The spread between trainings: closed forms, the level for every k, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2, t

from ddim_core.statistics.training_noise import TrainingNoise


def drawn(k: int, tau: float, draws: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores [draws, k] of twins and differences [draws] of two more trainings; each score has a
    sampling error of variance 1/2, so that a difference has one of 1."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(draws, k + 2)) * math.sqrt(tau**2 + 0.5)
    return scores[:, :k], scores[:, k] - scores[:, k + 1]


def test_two_trainings_without_sampling_error_follow_the_closed_form() -> None:
    noise = TrainingNoise.of([1.0, 3.0], [0.0])
    assert noise.sd == pytest.approx(math.sqrt(2.0))
    assert noise.low == pytest.approx(math.sqrt(2.0 / chi2.ppf(0.975, 1)))
    assert noise.high == pytest.approx(math.sqrt(2.0 / chi2.ppf(0.025, 1)))
    assert noise.reach() == pytest.approx(t.ppf(0.975, 1) * 2.0)
    assert noise.p_value(noise.reach()) == pytest.approx(0.05)
    assert noise.p_value(noise.reach() + 7.0, margin=7.0) == pytest.approx(0.05)


def test_what_sampling_explains_is_taken_off_and_nothing_falls_below_zero() -> None:
    # S^2 = 1; differences have an error of variance 1, of which each score has one half.
    noise = TrainingNoise.of([-1.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    assert noise.sd == pytest.approx(math.sqrt(0.5))
    assert TrainingNoise.of([-1.0, 0.0, 1.0], [2.0, 2.0, 2.0]).sd == 0.0
    assert TrainingNoise.of([1.0, 1.0], [0.0]).p_value(0.0) == 1.0
    assert TrainingNoise.of([1.0, 1.0], [0.0]).p_value(0.1) == 0.0


def test_a_pair_known_less_well_than_the_twins_has_the_rest_of_its_error_added() -> None:
    noise = TrainingNoise.of([-1.0, 0.0, 1.0], [0.5, 0.5, 0.5])
    assert noise.reach(0.5) == noise.reach(0.1) == noise.reach()
    assert noise.reach(1.5) == pytest.approx(noise.factor * math.sqrt(2.0 + 1.5**2 - 0.5**2))


@pytest.mark.parametrize("k", [2, 3, 5, 8])
@pytest.mark.parametrize("tau", [0.0, 0.5, 3.0])
def test_two_new_trainings_of_the_recipe_are_told_apart_in_one_case_of_twenty(
    k: int, tau: float
) -> None:
    draws = 4000
    scores, differences = drawn(k, tau, draws)
    errors = [1.0] * (k * (k - 1) // 2)
    apart = sum(
        TrainingNoise.of(list(row), errors).p_value(d, 1.0) < 0.05
        for row, d in zip(scores, differences, strict=True)
    )
    # Binomial, 4000 at 0.05: a standard error of 0.0034; four of them.
    assert apart / draws == pytest.approx(0.05, abs=0.014)


@pytest.mark.parametrize("k", [3, 8])
def test_the_interval_of_the_spread_covers_it(k: int) -> None:
    scores, _ = drawn(k, 2.0, 3000, seed=1)
    errors = [1.0] * (k * (k - 1) // 2)
    found = [TrainingNoise.of(list(row), errors) for row in scores]
    # Binomial, 3000 at 0.95: a standard error of 0.004; four of them.
    assert np.mean([x.low <= 2.0 <= x.high for x in found]) == pytest.approx(0.95, abs=0.016)


def test_what_tells_no_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="1 training tells no spread"):
        TrainingNoise.of([1.0], [])
    with pytest.raises(ValueError, match="2 errors are given; 3 trainings have 3"):
        TrainingNoise.of([1.0, 2.0, 3.0], [0.1, 0.1])
    with pytest.raises(ValueError, match="not finite"):
        TrainingNoise.of([1.0, math.nan], [0.1])
