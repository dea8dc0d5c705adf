"""Which scheduler of diffusers takes the steps of our own sampler, and when none does."""

from __future__ import annotations

from typing import Any

import pytest

from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.shipping.expressed import expressed

OWN = {"_class_name": "DDPMScheduler", "num_train_timesteps": 100, "beta_start": 1e-3,
       "beta_end": 0.1, "beta_schedule": "linear"}  # fmt: skip


def found(**asked: Any) -> Any:
    return expressed(NoiseSchedule.linear(100, 1e-3, 0.1), SamplerSpec(**asked), {
        **OWN, "prediction_type": asked.get("prediction_type", "epsilon")})  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "kind", "steps"),
    [
        ({"steps": 10}, "DDIMScheduler", {"num_inference_steps": 10}),
        ({"steps": 10, "eta": 0.5}, "DDIMScheduler", {"num_inference_steps": 10}),
        ({"steps": 7, "spacing": "leading", "steps_offset": 1}, "DDIMScheduler",
         {"num_inference_steps": 7}),
        ({"steps": 10, "spacing": "trailing", "clip": True}, "DDIMScheduler",
         {"num_inference_steps": 10}),
        ({"steps": 10, "prediction_type": "v_prediction"}, "DDIMScheduler",
         {"num_inference_steps": 10}),
        ({"steps": 10, "variance": "sigma_hat", "clip": True}, "DDPMScheduler",
         {"num_inference_steps": 10}),
        ({"steps": 5, "spacing": "quad"}, "DPMSolverMultistepScheduler",
         {"timesteps": [80, 45, 20, 5, 0]}),
        ({"steps": 5, "spacing": "quad", "eta": 1.0}, "DDPMScheduler",
         {"timesteps": [80, 45, 20, 5, 0]}),
    ],
)  # fmt: skip
def test_settings_that_diffusers_can_express(
    asked: dict[str, Any], kind: str, steps: dict[str, Any]
) -> None:
    made = found(**asked)
    assert (type(made.scheduler).__name__, made.set_steps) == (kind, steps)


def test_the_cleanest_timesteps_of_a_cosine_schedule_are_told_apart_from_rounding() -> None:
    own = {**OWN, "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    for eta in (0.0, 0.5, 1.0):
        made = expressed(NoiseSchedule.cosine(1000), SamplerSpec(steps=4, eta=eta), own)
        assert made is not None
        assert type(made.scheduler).__name__ == "DDIMScheduler"


@pytest.mark.parametrize(
    "asked",
    [
        {"steps": 5, "spacing": "quad", "eta": 0.5},
        {"steps": 5, "spacing": "quad", "clip": True},
        {"steps": 10, "clip": True, "rederive_eps": True},
    ],
)
def test_settings_that_no_scheduler_has(asked: dict[str, Any]) -> None:
    assert found(**asked) is None
