"""Whole samplers against an exact distribution, and side by side with diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, UNet2DModel
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from ddim_core.diffusion.sampling import ImageNoise, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.images.load import load_images
from ddim_core.networks.specs import TrainSpec
from ddim_core.networks.training import start, train
from tests.core.analytic import Mixture, MixtureModel, one_thread  # noqa: F401 (a fixture)

LINEAR = NoiseSchedule.linear(1000, 1e-4, 0.02)
PLANE = Mixture.of(
    [[1.0, 0.3], [-0.8, 0.6], [0.2, -1.0], [-0.5, -0.4]],
    [0.15, 0.25, 0.1, 0.3],
    [0.3, 0.3, 0.2, 0.2],
)
N_POINTS = 2000
DIRECTIONS = [np.array([np.cos(angle), np.sin(angle)]) for angle in np.pi * np.arange(8) / 8]


def points(spec: SamplerSpec) -> NDArray[np.float64]:
    noise = ImageNoise(2024, range(N_POINTS), (2,))
    model = MixtureModel(PLANE, LINEAR.alpha_bar)
    with torch.inference_mode():
        *_, last = sample(model, LINEAR, spec, noise.x_T().double(), noise)
    return last.x.numpy()


def smallest_p_value(x: NDArray[np.float64]) -> float:
    """Kolmogorov-Smirnov along eight directions, against the mixture's exact projections.

    A projection of the mixture is a one-dimensional mixture with a closed distribution function;
    the smallest of the eight p-values is multiplied by eight (Bonferroni).
    """
    means, sds, shares = (value.numpy() for value in (PLANE.means, PLANE.sds, PLANE.weights))
    p_values = []
    for direction in DIRECTIONS:

        def distribution(z: NDArray[Any], centres: Any = means @ direction) -> NDArray[Any]:
            return (shares * stats.norm.cdf((z[:, None] - centres) / sds)).sum(axis=1)

        p_values.append(stats.kstest(x @ direction, distribution).pvalue)
    return min(1.0, 8 * min(p_values))


@pytest.mark.parametrize(
    "spec",
    [
        SamplerSpec(1000),
        SamplerSpec(1000, 0.5),
        SamplerSpec(1000, 1.0),
        SamplerSpec(1000, variance="sigma_hat"),
    ],
    ids=lambda spec: f"{spec.variance}-{spec.eta}",
)
def test_thousand_exact_steps_sample_the_mixture(spec: SamplerSpec) -> None:
    assert smallest_p_value(points(spec)) > 0.01  # seeds are fixed: no flakes


def test_exact_draws_pass_the_test_and_a_few_steps_do_not() -> None:
    assert smallest_p_value(PLANE.draw(N_POINTS, seed=1).numpy()) > 0.01
    assert smallest_p_value(points(SamplerSpec(5))) < 1e-4


@pytest.fixture(scope="module")
def unet() -> UNet2DModel:
    """The toy of the digits after 100 steps, in which its loss falls from 1.1 to 0.17."""
    spec = TrainSpec(steps=100, batch_size=32, warmup_steps=10, ema_decay=0.9)
    state = start(spec)
    for _ in train(spec, load_images("digits", "train").images, state):
        pass
    network: UNet2DModel = state.ema
    return network.eval()


@pytest.mark.parametrize(
    ("spec", "flags"),
    [
        (SamplerSpec(10, spacing="leading"), {}),
        (SamplerSpec(10, 1.0, spacing="leading", steps_offset=1), {}),
        (SamplerSpec(10, 0.5, spacing="trailing", clip=True), {}),
        (SamplerSpec(10, 0.5, spacing="leading", clip=True, rederive_eps=True), {}),
        (SamplerSpec(10, 0.5, spacing="leading", prediction_type="sample"), {}),
        (
            SamplerSpec(10, 0.5, spacing="trailing", prediction_type="v_prediction"),
            {"rescale_betas_zero_snr": True},
        ),
        (
            SamplerSpec(10, 0.5, spacing="leading", dynamic_threshold=0.9, clip_range=1.5),
            {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5},
        ),
    ],
    ids=lambda value: (
        f"{value.spacing}-{value.prediction_type}-{value.eta}"
        if isinstance(value, SamplerSpec)
        else "-".join(value)
    ),
)
def test_images_equal_those_of_diffusers_with_the_same_noise(
    unet: UNet2DModel, spec: SamplerSpec, flags: dict[str, Any]
) -> None:
    peer = DDIMScheduler(
        timestep_spacing=spec.spacing,
        steps_offset=spec.steps_offset,
        prediction_type=spec.prediction_type,
        clip_sample=spec.clip,
        **flags,
    )
    peer.set_timesteps(spec.steps)
    noise = ImageNoise(1, range(4), (1, 8, 8))

    def model(x: Tensor, t: Tensor) -> Tensor:
        return unet(x, t).sample

    schedule = NoiseSchedule.from_diffusers(peer.config)
    with torch.inference_mode():
        ours = list(sample(model, schedule, spec, noise.x_T(), noise))
        x = noise.x_T()
        for i, (t, record) in enumerate(zip(peer.timesteps.tolist(), ours, strict=True)):
            assert record.t == t
            x, x0 = peer.step(
                unet(x, t).sample,
                t,
                x,
                eta=spec.eta,
                use_clipped_model_output=spec.rederive_eps,
                variance_noise=noise(i),
                return_dict=False,
            )
            # Rounding of x_t, and of diffusers' float32 alpha_bar, grows where x0 is x_t divided
            # by as little as 0.006; measured worst 4e-5 of the largest pixel.
            for mine, theirs in ((record.x0_hat, x0), (record.x, x)):
                torch.testing.assert_close(
                    mine, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max())
                )
