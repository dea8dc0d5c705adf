"""Each deterministic sampler follows the ODE at its order, with the exact score.

A trained network would hide it: its error is larger than a solver's. The timesteps are real or
whole as each scheduler makes them; where a scheduler rounds them, the network of this test was
trained on so many that the rounding (about 1 / T) does not show, or they are whole by S | T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from ddim_core.samplers.catalogue import SAMPLERS
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from tests.core.analytic import one_thread  # noqa: F401
from tests.core.samplers.exact import (
    World,
    error,
    fitted_order,
    linear,
    network,
    noise,
    smooth,
)

TOLERANCE = 0.3


@dataclass(frozen=True)
class Case:
    """What is measured of a sampler.

    Attributes:
        own: The checkpoint's scheduler.
        steps: The S at which the order shows.
        order: What it must be, within `tolerance`.
    """

    sampler: str
    own: Mapping[str, Any]
    steps: tuple[int, ...]
    order: int
    world: World = "vp"
    tolerance: float = TOLERANCE


def flow(n_train: int = 1000, shift: float = 1.0) -> dict[str, Any]:
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": n_train,
        "shift": shift,
    }


EDM = {"_class_name": "EDMEulerScheduler"}
WHOLE = smooth(4000, timestep_spacing="trailing")  # S divides T: DDIM and PNDM go by T // S
FEW = (20, 40, 80)
CASES = [
    Case("ddim", WHOLE, FEW, 1),
    Case("euler", smooth(), FEW, 1),
    Case("heun", smooth(), FEW, 2),
    Case("kdpm2", smooth(400), (20, 40), 2),
    # LMS ends at 0 in its own order; its slope still rises to 4 (3.3 at S = 80, 3.8 at S = 160).
    Case("lms", linear(timestep_spacing="trailing"), (80, 144), 4, tolerance=0.5),
    # Its authors show second order (Liu et al. 2022, arXiv:2202.09778, theorem 3.1).
    Case("pndm", WHOLE, (40, 80, 160), 2),
    Case("deis", smooth(), FEW, 2),
    Case("dpmpp_2m", smooth(4000), (40, 80, 160), 2),
    Case("dpmpp_2s", smooth(), FEW, 2),
    # It starts with a step of first and one of second order, whose share takes over for large S
    # (slope 2.3 from S = 64 to 96); below S = 15 its last steps are of lower order.
    Case("dpmpp_3m", smooth(), (24, 32, 48), 3),
    # Of second order with a corrector, which adds one (Zhao et al. 2023, arXiv:2302.04867).
    Case("unipc", smooth(4000), FEW, 3),
    # Its first step, from alpha = 0, leaves the network's answer out: the rest cannot mend that.
    Case("ipndm", {"_class_name": "IPNDMScheduler"}, FEW, 1, "v"),
    Case("flow_euler", flow(), (10, 20, 40), 1, "flow"),
    Case("flow_heun", flow(), (10, 20, 40), 2, "flow"),
    Case("edm_heun", EDM, (16, 32, 64), 2, "edm"),
    Case("edm_euler", EDM, (16, 32, 64), 1, "edm"),
    Case("edm_dpmpp_2m", EDM, (32, 64, 128), 2, "edm"),
]
# On a flow these end with a step of first order from sigma ~ 1 / S, so that the third order does
# not show; a shift below 1 makes the end finer. They ask at whole timesteps: with T = 1000 their
# error stays at 1e-3, whatever S.
ON_A_FLOW = [
    Case("dpmpp_2m", flow(400_000, 0.3), (80, 160, 320), 2, "flow"),
    Case("dpmpp_2s", flow(400_000, 0.3), (80, 160, 320), 2, "flow"),
    Case("dpmpp_3m", flow(400_000, 0.3), FEW, 2, "flow"),
    Case("unipc", flow(400_000, 0.3), FEW, 2, "flow"),
]


def measured(case: Case, fault: Callable[[Any], None] = lambda scheduler: None) -> float:
    return fitted_order(errors_of(case, fault))


def errors_of(
    case: Case, fault: Callable[[Any], None] = lambda scheduler: None
) -> dict[int, float]:
    return {S: error(case.sampler, case.own, S, case.world, fault) for S in case.steps}


def test_every_deterministic_sampler_of_the_catalogue_is_measured() -> None:
    deterministic = {name: s.order for name, s in SAMPLERS.items() if s.order is not None}
    assert {case.sampler: case.order for case in CASES} == deterministic
    on_a_flow = {n for n in deterministic if {"vp", "flow"} <= set(SAMPLERS[n].fits)}
    assert {case.sampler for case in ON_A_FLOW} == on_a_flow


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sampler)
def test_the_error_falls_with_the_steps_at_the_samplers_order(case: Case) -> None:
    errors = errors_of(case)
    assert fitted_order(errors) == pytest.approx(case.order, abs=case.tolerance)
    # Each pair of S by itself too, more loosely: a line also fits an error that stops falling.
    for pair in pairwise(errors.items()):
        assert fitted_order(dict(pair)) == pytest.approx(case.order, abs=2 * case.tolerance)


@pytest.mark.parametrize("case", ON_A_FLOW, ids=lambda case: case.sampler)
def test_the_error_falls_with_the_steps_on_a_flow(case: Case) -> None:
    assert measured(case) == pytest.approx(case.order, abs=case.tolerance)


def test_edms_heun_takes_a_network_that_answers_v_as_diffusers_has_it() -> None:
    """Diffusers' `v_prediction` of an EDM is F with its sign turned: both give the same images."""
    own = {**EDM, "prediction_type": "v_prediction"}
    name = parse_sampler("edm_heun")
    drawn = []
    for config, sign in ((EDM, 1.0), (own, -1.0)):
        scheduler = scheduler_for(name, config)
        set_steps(scheduler, name, 8)
        ask = network("edm", scheduler)
        drawn.append(draw(lambda x, t: sign * ask(x, t), scheduler, noise()).x)  # noqa: B023
    assert torch.equal(*drawn)


def unscaled(scheduler: Any) -> None:
    """No scale_model_input, as `DDPMPipeline` does without."""
    scheduler.scale_model_input = lambda x, t: x


def larger_sigmas(scheduler: Any) -> None:
    """The steps are taken at noise levels a tenth beside those of the timesteps."""
    scheduler.sigmas = scheduler.sigmas * 1.1


def later_sigmas(scheduler: Any) -> None:
    """Each step but the first starts halfway to the noise level of the next one."""
    sigmas = scheduler.sigmas
    middle = (sigmas[1:-1] + sigmas[2:]) / 2.0
    scheduler.sigmas = torch.cat([sigmas[:1], middle, sigmas[-1:]])


def noisier_alphas(scheduler: Any) -> None:
    scheduler.alphas_cumprod = scheduler.alphas_cumprod**1.5


def v_for_eps(scheduler: Any) -> None:
    scheduler.register_to_config(prediction_type="v_prediction")


OF = {case.sampler: case for case in CASES}


@pytest.mark.parametrize(
    ("sampler", "fault"),
    [
        *((name, unscaled) for name in ("euler", "heun", "kdpm2", "edm_euler", "edm_dpmpp_2m")),
        *((name, larger_sigmas) for name in ("euler", "dpmpp_2m", "dpmpp_3m", "unipc", "deis")),
        *((name, larger_sigmas) for name in ("flow_euler", "flow_heun", "edm_euler")),
        *((name, later_sigmas) for name in ("heun", "dpmpp_2m", "dpmpp_3m", "unipc", "flow_heun")),
        *((name, noisier_alphas) for name in ("ddim", "pndm")),
        *((name, v_for_eps) for name in ("ddim", "euler", "heun", "pndm", "dpmpp_2m", "unipc")),
    ],
)  # fmt: skip
def test_a_wrongly_wired_sampler_loses_its_order(
    sampler: str, fault: Callable[[Any], None]
) -> None:
    case = replace(OF[sampler], steps=OF[sampler].steps[-2:])  # an error that stays shows in two
    assert abs(measured(case, fault) - case.order) > case.tolerance
