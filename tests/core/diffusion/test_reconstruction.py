"""Encode and decode: the error's measure and interval, and its fall with S."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from ddim_core.diffusion.reconstruction import mean_error, reconstruct, squared_errors
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from tests.core.analytic import Mixture, MixtureModel, one_thread  # noqa: F401

SCHEDULE = NoiseSchedule.linear(1000, 1e-4, 0.02)
CORNERS = Mixture.of([[-0.8, 0.4], [0.7, -0.6]], [0.15, 0.3], [0.4, 0.6])
MODEL = MixtureModel(CORNERS, SCHEDULE.alpha_bar)


def error_at(steps: int) -> float:
    x_0 = CORNERS.draw(64, seed=0)
    x = reconstruct(MODEL, SCHEDULE, SamplerSpec(steps=steps), x_0)
    return mean_error(squared_errors(x, x_0)).mean


def test_error_falls_as_the_square_of_the_step() -> None:
    # The way back is off by O(1/S), so its square falls by 4 from S to 2 S; at these S the next
    # order is still seen, so between 2.5 and 6.
    errors = [error_at(steps) for steps in (50, 100, 200)]
    ratios = [few / many for few, many in pairwise(errors)]
    assert all(2.5 < ratio < 6.0 for ratio in ratios), ratios


def test_squared_error_is_per_dimension_on_pixels_from_0_to_1() -> None:
    black, white = -torch.ones(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    assert squared_errors(black, white).tolist() == [1.0, 1.0, 1.0]
    one_pixel = black.clone()
    one_pixel[1, 0, 2, 2] = 0.0  # half of the range, in one of 16 dimensions
    assert squared_errors(one_pixel, black).tolist() == [0.0, 0.25 / 16, 0.0]


def test_errors_below_a_grey_level_are_kept() -> None:
    x_0 = torch.zeros(1, 1, 2, 2)
    assert squared_errors(x_0 + 2e-4, x_0)[0] == pytest.approx(1e-8, rel=1e-4)  # float32 rounding


def test_interval_is_students_over_images() -> None:
    errors = np.random.default_rng(0).exponential(size=40)
    found = mean_error(errors)
    low, high = stats.t.interval(0.95, 39, errors.mean(), stats.sem(errors))
    assert (found.mean, found.low, found.high) == pytest.approx((errors.mean(), low, high))


def test_interval_stays_above_0_and_one_image_has_none() -> None:
    assert mean_error(np.array([0.0, 1.0])).low == 0.0
    one = mean_error(np.array([0.5]))
    assert (one.mean, one.low, one.high) == (0.5, None, None)


@pytest.mark.parametrize("steps", [1, 7])
def test_any_number_of_steps_comes_back_finite(steps: int) -> None:
    assert np.isfinite(error_at(steps))


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="0 errors"):
        mean_error(np.empty(0))
    with pytest.raises(ValueError, match=r"shapes are \(2, 3\) and \(2, 1\)"):
        squared_errors(torch.zeros(2, 3), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="1 of 2 images is NaN"):
        squared_errors(torch.tensor([[0.0], [float("nan")]]), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="only eta 0"):
        reconstruct(MODEL, SCHEDULE, SamplerSpec(steps=5, eta=0.5), torch.zeros(1, 2))
