"""Where samplers can be told to ask: scales, lists, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import Visited, scheduler_for, set_steps
from ddim_core.tuning.positions import (
    NotTunableError,
    Scale,
    needs_steps,
    require_tunable,
    scale_of,
)
from tests.core.samplers.exact import linear

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
EDM = {"_class_name": "EDMEulerScheduler"}


def scale(sampler: str, own: dict[str, Any]) -> Scale:
    def visits(name: Any, steps: int) -> Visited:
        return set_steps(scheduler_for(name, own), name, steps)

    return scale_of(parse_sampler(sampler), own, visits)


@pytest.mark.parametrize(
    ("sampler", "own", "word", "whole"),
    [
        ("dpmpp_2m", linear(), "timesteps", True),
        ("dpmpp_2s", linear(), "timesteps", True),
        ("heun", linear(), "timesteps", True),
        ("euler", linear(), "timesteps", True),
        ("flow_euler", FLOW, "sigmas", False),
        ("unipc", FLOW, "sigmas", False),
    ],
)
def test_a_scheduler_goes_where_its_list_says(
    sampler: str, own: dict[str, Any], word: str, whole: bool
) -> None:
    found = scale(sampler, own)
    assert (found.word, found.whole) == (word, whole)
    name = found.listed(parse_sampler(sampler), (0.9 * found.top // 1, 0.5 * found.top // 1))
    assert name.n_listed == 2
    done = set_steps(scheduler_for(name, own), name, 2)
    if word == "timesteps":
        assert list(dict.fromkeys(done.timesteps)) == list(name.timesteps)
    assert parse_sampler(name.text) == name
    assert found.positions_of(name) == pytest.approx((0.9 * found.top // 1, 0.5 * found.top // 1))
    noisiest = found.listed(parse_sampler(sampler), (found.top, 0.5 * found.top // 1))
    assert noisiest.text == parse_sampler(noisiest.text).text  # rows of the table are found by it


@pytest.mark.parametrize(
    ("sampler", "own", "message"),
    [
        ("euler_a", linear(), "draws noise on the way"),
        ("dpmpp_2m_sde", linear(), "draws noise on the way"),
        ("sigma-hat", linear(), "draws noise on the way"),
        ("dpmpp_2m/karras", linear(), "says already where it asks"),
        ("dpmpp_2m?timesteps=[9,5]", linear(), "says already where it asks"),
        ("own", linear(), "own .DDPMScheduler. draws noise on the way"),
        (
            "own",
            linear(_class_name="DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"),
            "draws noise on the way",
        ),
        ("deis", linear(), r"cannot be told where to ask the network \(deis .* takes no list"),
        ("unipc", linear(), r"cannot be told where to ask the network \(unipc .* takes no list"),
        ("flow_heun", FLOW, "cannot be told where to ask"),
        ("edm_euler", EDM, "take no list .what they call sigmas is a ramp"),
        ("own", {"_class_name": "LCMScheduler"}, "the checkpoint is distilled to few steps"),
    ],
)
def test_what_cannot_be_tuned_is_refused_with_the_reason(
    sampler: str, own: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotTunableError, match=message):
        scale(sampler, own)


def test_steps_make_network_calls() -> None:
    assert needs_steps(parse_sampler("dpmpp_2m"), linear(), 4) == 4
    assert needs_steps(parse_sampler("heun"), linear(), 5) == 3
    with pytest.raises(ValueError, match="calls is 4; take an odd number"):
        needs_steps(parse_sampler("heun"), linear(), 4)
    require_tunable(parse_sampler("heun"))


def test_positions_lie_where_the_network_was_trained() -> None:
    found = scale("dpmpp_2m", linear())
    assert found.spaced(5, 1.0, 0.0, 1.0) == (999.0, 749.0, 500.0, 250.0, 0.0)
    assert found.spaced(1, 0.5, 0.0, 1.0) == (500.0,)
    assert found.settled((1200.0, 3.4, 2.6)) is None
    assert found.settled((1200.0, 3.6, 2.4)) == (999.0, 4.0, 2.0)
    assert found.spaced(2000, 1.0, 0.0, 1.0) is None
