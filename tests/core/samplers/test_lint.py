"""What the linter says of a sampler on a checkpoint, and that it says nothing without a reason."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ddim_core.samplers.catalogue import SAMPLERS
from ddim_core.samplers.lint import lint_scheduler
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from tests.core.analytic import one_thread  # noqa: F401

PLAIN: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "clip_sample": False, "timestep_spacing": "trailing",
}  # fmt: skip
FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
ZERO_SNR = {**PLAIN, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}


def said(name: str, own: dict[str, Any], steps: int, mu: float | None = None) -> dict[str, str]:
    return {f.code: f.message for f in lint_scheduler(parse_sampler(name), own, steps, mu)}


def test_an_idle_last_step_is_said_where_it_is_one() -> None:
    x = torch.linspace(-2, 2, 8).reshape(2, 4)

    def drawn(name: str, steps: int) -> torch.Tensor:
        sampler = parse_sampler(name)
        scheduler = scheduler_for(sampler, FLOW)
        set_steps(scheduler, sampler, steps)
        return draw(lambda x, t: x.sin() + t[:, None] / 1000, scheduler, x).x

    as_said = drawn("flow_euler?sigmas=[1,0.75,0.5,0.25]", 4)
    # 0.001 of the velocity, once more or less at its place
    assert (drawn("flow_euler", 5) - as_said).abs().max() < 2e-3
    assert (drawn("flow_euler", 4) - as_said).abs().max() > 2e-2
    for name in ("dpmpp_2m", "unipc", "flow_euler?sigmas=[1,0.75,0.5,0.25]"):
        assert "idle_last_step" not in said(name, FLOW, 4)


def test_nothing_is_said_where_all_is_as_it_should_be() -> None:
    assert said("own", PLAIN, 10) == {}
    assert said("flow_euler?sigmas=[1,0.75,0.5,0.25]", FLOW, 4) == {}
    assert said("edm_euler", {"_class_name": "EDMEulerScheduler"}, 10) == {}


@pytest.mark.parametrize(
    ("code", "name", "own", "steps", "words"),
    [
        ("late_start", "own", {**PLAIN, "timestep_spacing": "leading"}, 10,
         "at timestep 900 of 0..999, spacing 'leading', where the network was trained with "
         "alpha_bar = 0.00027 of signal; trailing spacing would start at the last"),
        ("carried_over", "euler", {**PLAIN, "timestep_spacing": "leading"}, 10,
         "timestep_spacing = 'leading'"),
        ("defaults_differ", "dpmpp_2m", {"_class_name": "DDIMScheduler"}, 10,
         "timestep_spacing = 'linspace' (there 'leading')"),
        ("config_ignored", "euler", {**PLAIN, "clip_sample": True}, 10,
         "clip_sample = True, which EulerDiscreteScheduler ignores"),
        ("config_ignored", "euler", {**PLAIN, "thresholding": True}, 10, "thresholding = True"),
        ("config_ignored", "dpmpp_2s", PLAIN, 10, "timestep_spacing = 'trailing'"),
        ("zero_snr_ignored", "heun", ZERO_SNR, 10, "another schedule of betas"),
        ("zero_snr_epsilon", "own", {**ZERO_SNR, "prediction_type": "epsilon"}, 10,
         "alpha_bar is 0 at timestep 999"),
        ("final_sigma", "deis", PLAIN, 10, "ends at sigma = 0.01, which stays in the images"),
        ("final_sigma", "own", {**PLAIN, "set_alpha_to_one": False}, 10, "sigma = 0.01"),
        ("final_sigma", "euler?final_sigmas_type=sigma_min", PLAIN, 10, "sigma = 0.01"),
        ("evaluations", "heun", PLAIN, 10, "asks the network 19 times in 10 steps"),
        ("idle_last_step", "own", FLOW, 5, "from sigma 0.001 to 0 and changes next to nothing: 5 "
         "steps draw as 4 even ones would. Sigmas that are listed, as Flux's pipeline does, waste "
         "none: flow_euler?sigmas=[1.0,0.8,0.6,0.4,0.2]"),
        ("lower_order_final", "dpmpp_2m", PLAIN, 10, "fewer than 15 steps"),
        ("steps_elsewhere", "own", PLAIN, 30, "first from 966 to 933 instead of 932"),
        ("whole_timesteps", "dpmpp_2m/karras", PLAIN, 10, "beside those of the images"),
        ("whole_timesteps", "dpmpp_2m", FLOW, 30, "asks the network at whole timesteps"),
        ("sigmas_shifted", "flow_euler?sigmas=[1,0.5]", {**FLOW, "shift": 3.0}, 2, "1, 0.75"),
        ("peer_scales_nothing", "euler", PLAIN, 10, "calls no scale_model_input"),
        ("wrong_in_diffusers", "dpmpp_3m_sde", PLAIN, 10, "a sign wrong"),
        ("departs", "euler/karras?sigma_max=5", PLAIN, 10, "sigma_max is 5 here and not set in the "
         "checkpoint: noise levels begin elsewhere than they did in training"),
        ("departs", "own?timestep_scaling=1", {"_class_name": "LCMScheduler"}, 4, "otherwise than"),
        ("departs", "own?thresholding=true", PLAIN, 10, "which pixels have and latents have not"),
        ("no_part", "euler?sigma_max=5", PLAIN, 10, "counts only with a rule of sigmas"),
        ("no_part", "own?clip_sample_range=2", PLAIN, 10, "only with clip_sample=true"),
        ("no_part", "own?max_shift=2", FLOW, 4, "only with use_dynamic_shifting=true"),
    ],
)  # fmt: skip
def test_each_finding_is_said_with_its_numbers(
    code: str, name: str, own: dict[str, Any], steps: int, words: str
) -> None:
    assert words in said(name, own, steps)[code]


@pytest.mark.parametrize(
    ("code", "name", "own", "steps"),
    [
        ("zero_snr_ignored", "dpmpp_2m", ZERO_SNR, 10),  # it knows zero SNR
        ("zero_snr_epsilon", "own", ZERO_SNR, 10),
        ("steps_elsewhere", "own", PLAIN, 50),
        ("lower_order_final", "dpmpp_2m", PLAIN, 20),
        ("late_start", "euler", PLAIN, 10),
        ("wrong_in_diffusers", "dpmpp_2m_sde", PLAIN, 10),
        ("carried_over", "euler?timestep_spacing=leading", PLAIN, 10),
        ("no_part", "euler/karras?sigma_max=5", PLAIN, 10),
        ("no_part", "edm_euler?sigma_max=50", {"_class_name": "EDMEulerScheduler"}, 10),
        ("departs", "own?clip_sample=false", {**PLAIN, "clip_sample": True}, 10),
    ],
)  # fmt: skip
def test_what_is_in_order_is_not_said(
    code: str, name: str, own: dict[str, Any], steps: int
) -> None:
    assert code not in said(name, own, steps)


def test_a_late_start_with_much_signal_is_a_warning() -> None:
    own = {**PLAIN, "timestep_spacing": "leading", "beta_end": 0.004}
    (late,) = [f for f in lint_scheduler(parse_sampler("own"), own, 5) if f.code == "late_start"]
    assert late.severity == "warning"


def test_steps_that_depend_on_the_pictures_size_are_said_when_it_is_known() -> None:
    own = {**FLOW, "use_dynamic_shifting": True}
    assert "whole_timesteps" not in said("dpmpp_2m", own, 30)
    assert "whole_timesteps" in said("dpmpp_2m", own, 30, mu=0.8)


def test_every_sampler_can_be_linted() -> None:
    for name, sampler in SAMPLERS.items():
        for family in sampler.fits or ("own",):
            short = {**PLAIN, "num_train_timesteps": 200}  # to make a KDPM2 takes T^2
            own = {"vp": short, "flow": FLOW}.get(family, {"_class_name": sampler.kind})
            for finding in lint_scheduler(parse_sampler(name), own, 5):
                assert finding.message.endswith(".")
                assert "\n" not in finding.message
