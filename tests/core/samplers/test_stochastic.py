"""Each sampler that draws noise on the way draws from the mixture itself, with the exact score."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from ddim_core.samplers.catalogue import SAMPLERS
from ddim_core.samplers.lint import lint_scheduler
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams
from ddim_core.schedulers.flow_sde import Form
from tests.core.analytic import one_thread  # noqa: F401
from tests.core.samplers.exact import MIXTURE, linear, network, solution, velocity, x0_and_eps

N = 3000
OF_FLOWS = "FlowMatchEulerDiscreteScheduler"
DIRECTIONS = [(math.cos(a), math.sin(a)) for a in np.arange(6) * math.pi / 6]
RARE = 1e-4
"""P-value of the most telling of six directions: by chance one test in 1,700 falls below it, and
the draws are fixed. At 3,000 points each a difference of 0.06 between distribution functions has
it."""
STEPS = {"ddpm": 100, "ddim": 100, "euler_a": 100, "kdpm2_a": 50, "dpmpp_2m_sde": 100,
         "sa_solver": 100}  # fmt: skip
WRONG = {"dpmpp_3m_sde": 100}  # a sign in diffusers' step; see SDE_3 of the linter
DISTILLED = {"lcm": 4, "tcd": 4}
ETA = {"ddim": 1.0, "tcd": 1.0}


def p_value(points: Tensor) -> float:
    """The smallest p-value of a Kolmogorov-Smirnov test in each of some directions."""
    truth = MIXTURE.draw(N, seed=7)
    return min(
        ks_2samp((points @ way).numpy(), (truth @ way).numpy()).pvalue
        for way in torch.tensor(DIRECTIONS, dtype=torch.float64)
    )


def drawn(
    sampler: str,
    own: dict[str, Any],
    steps: int,
    fault: Callable[[Any], None] = lambda scheduler: None,
) -> Tensor:
    """N points, drawn as one image: the noise of each is its own, from one stream."""
    name = parse_sampler(sampler)
    scheduler = scheduler_for(name, own)
    set_steps(scheduler, name, steps)
    asks = {"DDPMScheduler": lambda: network("vp", scheduler), OF_FLOWS: lambda: flowing}
    ask = asks.get(own["_class_name"], lambda: consistent(scheduler))()
    fault(scheduler)
    x_T = torch.randn(1, N, 2, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        x = draw(ask, scheduler, x_T, image_streams(0, [0]), ETA.get(sampler, 0.0)).x
    return x[0].double()


def flowing(x: Tensor, t: Tensor) -> Tensor:
    """The exact network of a flow."""
    return velocity(x[0].double(), float(t[0]) / 1000)[None].float()


def consistent(scheduler: Any) -> Any:
    """What a perfectly distilled network would predict: where the ODE leads from x."""
    alpha_bar = scheduler.alphas_cumprod.double()

    def model(x: Tensor, t: Tensor) -> Tensor:
        a = float(alpha_bar[int(t[0])])
        sigma = math.sqrt((1.0 - a) / a)
        x0 = x0_and_eps(solution(x[0].double() / a**0.5, sigma, 0.01, n=25), 0.01)[0]
        return x0[None].float()

    return model


def test_every_sampler_that_draws_noise_is_tested() -> None:
    noisy = {name for name, s in SAMPLERS.items() if s.noisy or s.eta}
    assert noisy == {*STEPS, *DISTILLED, *WRONG, "flow_sde"}
    assert {name for name, s in SAMPLERS.items() if s.order is None} <= noisy


@pytest.mark.parametrize("sampler", STEPS)
def test_what_is_drawn_is_distributed_as_the_data(sampler: str) -> None:
    assert p_value(drawn(sampler, linear(), STEPS[sampler])) > RARE


@pytest.mark.parametrize("form", get_args(Form))
def test_a_flows_sde_draws_the_data_whatever_its_diffusion(form: str) -> None:
    sampler = f"flow_sde?diffusion_form={form}&last_step_size=0.01"
    if form == "SBDM":  # infinite at 1
        levels = ",".join(f"{level:.6f}" for level in np.linspace(0.97, 0.01, 150))
        sampler = f"flow_sde?diffusion_form={form}&sigmas=[{levels}]"
    assert p_value(drawn(sampler, {"_class_name": OF_FLOWS}, 150)) > RARE


def test_a_variance_exploding_model_draws_the_data() -> None:
    name = parse_sampler("own")
    scheduler = scheduler_for(name, {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 10.0})
    set_steps(scheduler, name, 120)
    x_T = torch.randn(1, N, 2, generator=torch.Generator().manual_seed(2))

    def score(x: Tensor, sigma: Tensor) -> Tensor:
        return -x0_and_eps(x[0].double(), float(sigma[0]))[1][None].float() / sigma

    assert p_value(draw(score, scheduler, x_T, image_streams(0, [0])).x[0].double()) > RARE


def test_what_diffusers_draws_wrongly_is_said_until_it_is_mended() -> None:
    for sampler, steps in WRONG.items():
        assert p_value(drawn(sampler, linear(), steps)) < RARE
        said = [f.code for f in lint_scheduler(parse_sampler(sampler), linear(), steps)]
        assert "wrong_in_diffusers" in said


@pytest.mark.parametrize("sampler", DISTILLED)
def test_a_perfectly_distilled_network_draws_the_data_in_a_few_steps(sampler: str) -> None:
    own = {**linear(), "_class_name": SAMPLERS[sampler].kind, "prediction_type": "sample"}
    assert p_value(drawn(sampler, own, DISTILLED[sampler])) > RARE


def unscaled(scheduler: Any) -> None:
    scheduler.scale_model_input = lambda x, t: x


def larger_sigmas(scheduler: Any) -> None:
    scheduler.sigmas = scheduler.sigmas * 2.0


def cleaner_alphas(scheduler: Any) -> None:
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**0.3


def v_for_eps(scheduler: Any) -> None:
    scheduler.register_to_config(prediction_type="v_prediction")


@pytest.mark.parametrize(
    ("sampler", "fault"),
    [
        ("euler_a", unscaled), ("euler_a", larger_sigmas), ("euler_a", v_for_eps),
        ("dpmpp_2m_sde", larger_sigmas), ("sa_solver", larger_sigmas), ("dpmpp_2m_sde", v_for_eps),
        ("ddpm", cleaner_alphas), ("ddpm", v_for_eps), ("flow_sde", larger_sigmas),
    ],
)  # fmt: skip
def test_a_wrongly_wired_sampler_draws_something_else(
    sampler: str, fault: Callable[[Any], None]
) -> None:
    own = {"_class_name": OF_FLOWS} if sampler == "flow_sde" else linear()
    assert not p_value(drawn(sampler, own, 50, fault)) > RARE
