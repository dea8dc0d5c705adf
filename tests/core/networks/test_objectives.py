"""What networks learn: epsilon as it always was, v, and the velocity of a rectified flow."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_core.common.digest import digest
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.networks.objectives import Lesson, lesson
from ddim_core.networks.specs import TargetSpec, TrainSpec

ALPHA_BAR = torch.tensor(NoiseSchedule.linear(1000, 1e-4, 0.02).alpha_bar)
X_0 = torch.linspace(-1, 1, 4000).reshape(4000, 1, 1, 1).expand(4000, 1, 2, 2)
# Of the version that knew no other objective.
EARLIER = "a674b72162b9f70089cfba8f2fdad9658d5bf529b9030d6c5f511b9686f02ec5"
FLOAT32 = 5e-6  # ten roundings of 6e-8, of numbers below 5


def shown(objective: Any) -> Lesson:
    return lesson(objective, X_0, ALPHA_BAR, torch.Generator().manual_seed(3))


def levels(of: Lesson) -> tuple[Tensor, Tensor]:
    alpha_bar = ALPHA_BAR[of.t].float()[:, None, None, None]
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def test_a_training_of_epsilon_has_the_digest_and_the_text_that_it_had() -> None:
    assert digest(TrainSpec()) == EARLIER
    assert "target" not in repr(asdict(TrainSpec()))
    others = {digest(TargetSpec(target="v")), digest(TargetSpec(target="flow"))}
    assert len(others | {EARLIER}) == 3


def test_epsilon_is_the_noise_with_the_draws_of_before() -> None:
    stream = torch.Generator().manual_seed(3)
    t = torch.randint(0, 1000, (4000,), generator=stream)
    eps = torch.randn(X_0.shape, generator=stream)
    signal = ALPHA_BAR[t].sqrt().float()[:, None, None, None]
    noise = (1.0 - ALPHA_BAR[t]).sqrt().float()[:, None, None, None]
    got = shown("epsilon")
    assert torch.equal(got.t, t)
    assert torch.equal(got.target, eps)
    assert torch.equal(got.x_t, signal * X_0 + noise * eps)


def test_v_turns_back_into_image_and_noise() -> None:
    got = shown("v")
    signal, noise = levels(got)
    assert got.t.dtype == torch.int64
    assert (signal * got.x_t - noise * got.target - X_0).abs().max() < FLOAT32
    eps = noise * got.x_t + signal * got.target
    assert (eps - shown("epsilon").target).abs().max() < FLOAT32


def test_a_flow_goes_straight_from_image_to_noise() -> None:
    got = shown("flow")
    sigma = (got.t / 1000)[:, None, None, None]
    assert (got.x_t - sigma * got.target - X_0).abs().max() < FLOAT32
    eps = got.x_t + (1 - sigma) * got.target
    # five standard errors of a standard normal's mean and variance, among 16,000
    assert abs(float(eps.mean())) < 5 / 16000**0.5
    assert float(eps.var()) == pytest.approx(1, abs=5 * (2 / 16000) ** 0.5)


def test_the_levels_of_a_flow_are_uniform_and_fractional() -> None:
    sigma = shown("flow").t.double() / 1000
    assert 0 <= sigma.min() < 0.002
    assert 0.998 < sigma.max() < 1
    assert (sigma * 1000 != (sigma * 1000).round()).double().mean() > 0.9
    # of a uniform draw: five standard errors of its mean and of its second moment
    assert float(sigma.mean()) == pytest.approx(1 / 2, abs=5 * (1 / 12 / 4000) ** 0.5)
    assert float(sigma.square().mean()) == pytest.approx(1 / 3, abs=5 * (4 / 45 / 4000) ** 0.5)


def test_what_no_network_learns_is_refused() -> None:
    with pytest.raises(ValueError, match="target is 'epsilon'"):
        TargetSpec(target="epsilon")  # type: ignore[arg-type]
