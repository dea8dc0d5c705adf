"""Which sampler fits which checkpoint, what is carried over, and what is refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import pytest

from ddim_core.samplers.catalogue import NAMES, SAMPLERS
from ddim_core.samplers.fits import NEVER_CLEAN
from ddim_core.samplers.lint import lint_scheduler
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import (
    Visited,
    config_of,
    entries_of,
    scheduler_for,
    set_steps,
    takes_eta,
    visited,
)
from ddim_core.samplers.trial import require_steps
from tests.core.analytic import one_thread  # noqa: F401

VP: dict[str, Any] = {"_class_name": "DDIMScheduler"}
SHORT = {**VP, "num_train_timesteps": 200}  # to make a KDPM2 scheduler takes T^2
FLOW: dict[str, Any] = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
EDM: dict[str, Any] = {"_class_name": "EDMEulerScheduler"}
STABLE_DIFFUSION = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None,
    "clip_sample": False,
}  # fmt: skip
OF_BETAS = {name for name, sampler in SAMPLERS.items() if "vp" in sampler.fits}
OF_FLOWS = {name for name, sampler in SAMPLERS.items() if "flow" in sampler.fits}
OWNS: list[tuple[str, Mapping[str, Any], set[str]]] = [
    ("betas", SHORT, OF_BETAS),
    ("v", {**SHORT, "prediction_type": "v_prediction"}, OF_BETAS),
    ("x0", {**SHORT, "prediction_type": "sample"},
     OF_BETAS - {"pndm", "euler_a", "heun", "lms", "kdpm2", "kdpm2_a"}),
    ("stable diffusion", {**STABLE_DIFFUSION, "num_train_timesteps": 200}, OF_BETAS),
    ("flow", FLOW, OF_FLOWS),
    ("flux", {**FLOW, "use_dynamic_shifting": True}, OF_FLOWS - {"flow_heun", "flow_sde"}),
    ("sana", {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True,
              "prediction_type": "flow_prediction", "flow_shift": 3.0}, OF_FLOWS),
    ("edm", EDM, {"edm_heun", "edm_euler", "edm_dpmpp_2m"}),
    ("lcm", {"_class_name": "LCMScheduler"}, {"lcm"}),
    ("tcd", {"_class_name": "TCDScheduler"}, {"tcd"}),
    ("ipndm", {"_class_name": "IPNDMScheduler"}, {"ipndm"}),
    ("ve", {"_class_name": "ScoreSdeVeScheduler"}, set()),
    ("cogvideo", {"_class_name": "CogVideoXDDIMScheduler"}, set()),
]  # fmt: skip


@pytest.mark.parametrize(("own", "fitting"), [o[1:] for o in OWNS], ids=[o[0] for o in OWNS])
def test_what_fits_a_checkpoint_runs_and_the_rest_is_refused(
    own: Mapping[str, Any], fitting: set[str]
) -> None:
    found, refusals = set(), []
    for name in NAMES:
        try:
            require_steps(parse_sampler(name), own, 5)
            found.add(name)
        except ValueError as error:
            refusals.append(str(error))
    assert found == {"own", *fitting}
    assert [said for said in refusals if "\n" in said] == []


def test_what_the_network_was_trained_on_is_carried_over_where_its_file_is_silent() -> None:
    heun, lcm = diffusers.HeunDiscreteScheduler(), diffusers.LCMScheduler()
    assert heun.config.beta_start != diffusers.DDIMScheduler().config.beta_start
    made = scheduler_for(parse_sampler("heun"), VP)
    assert made.alphas_cumprod.equal(diffusers.DDIMScheduler().alphas_cumprod)
    assert lcm.config.beta_schedule == "scaled_linear"
    assert scheduler_for(
        parse_sampler("euler"), {"_class_name": "HeunDiscreteScheduler"}
    ).betas.equal(heun.betas)


@pytest.mark.parametrize("name", ["dpmpp_2m", "euler", "unipc", "ddim", "heun", "dpmpp_2m/karras"])
def test_a_sampler_is_what_from_config_makes(name: str) -> None:
    parsed = parse_sampler(name)
    fixed = dict(SAMPLERS[parsed.name].fixed)
    fixed |= {"use_karras_sigmas": True} if parsed.sigmas else {}
    kind = getattr(diffusers, SAMPLERS[parsed.name].kind)
    theirs, ours = (
        kind.from_config(STABLE_DIFFUSION, **fixed),
        scheduler_for(parsed, STABLE_DIFFUSION),
    )
    assert {k: theirs.config[k] for k in ours.config if k[0] != "_"} == {
        k: v for k, v in ours.config.items() if k[0] != "_"
    }


def test_a_scheduler_in_memory_says_the_same_as_its_file() -> None:
    in_memory = diffusers.DDIMScheduler.from_config(VP)
    for name in ("dpmpp_2m", "euler", "own"):
        parsed = parse_sampler(name)
        made = {k: v for k, v in scheduler_for(parsed, VP).config.items() if k[0] != "_"}
        again = scheduler_for(parsed, config_of(in_memory)).config
        assert {k: again[k] for k in made} == made


def test_a_flow_and_its_shift_are_told_to_samplers_that_have_other_words_for_them() -> None:
    entries = entries_of(parse_sampler("dpmpp_2m"), {**FLOW, "use_karras_sigmas": True})
    told = {k: entries[k] for k in ("prediction_type", "use_flow_sigmas", "flow_shift")}
    assert told == {
        "prediction_type": "flow_prediction",
        "use_flow_sigmas": True,
        "flow_shift": 3.0,
    }
    assert entries["use_karras_sigmas"] is False  # which would be made from betas
    assert entries_of(parse_sampler("flow_heun"), OWNS[6][1])["shift"] == 3.0


@pytest.mark.parametrize("kind", NEVER_CLEAN)
def test_those_refused_on_a_flow_would_leave_noise_in_the_images(kind: str) -> None:
    own = {"_class_name": kind, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    name = parse_sampler("own")
    sigmas = set_steps(scheduler_for(name, own), name, 10).sigmas
    assert sigmas[-1] == sigmas[-2] == pytest.approx(0.1, abs=0.01)
    (found,) = [f for f in lint_scheduler(name, own, 10) if f.code == "final_sigma"]
    assert found.severity == "warning"


def test_a_rule_of_sigmas_takes_the_place_of_the_checkpoints_own() -> None:
    own = {**STABLE_DIFFUSION, "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True}
    assert entries_of(parse_sampler("dpmpp_2m"), own)["use_karras_sigmas"] is True
    assert entries_of(parse_sampler("dpmpp_2m/linear"), own)["use_karras_sigmas"] is False
    beta = entries_of(parse_sampler("dpmpp_2m/beta"), own)
    assert (beta["use_karras_sigmas"], beta["use_beta_sigmas"]) == (False, True)
    listed = scheduler_for(parse_sampler("dpmpp_2m?timesteps=[999,500]"), own)
    assert listed.config.use_karras_sigmas is False  # a list is refused beside a rule


@pytest.mark.parametrize(
    ("name", "own", "said"),
    [
        ("sigma-hat", VP, "this project's own DDIM sampler"),
        ("flow_euler", VP, "take own, ddpm"),
        ("euler", FLOW, "a flow-matching model"),
        ("deis", FLOW, "whose noise stays in the images"),
        ("ipndm", VP, "timesteps are 0 to 1"),
        ("euler", {"_class_name": "LCMScheduler"}, "distilled for LCMScheduler"),
        ("lcm", VP, "draws only from networks distilled for it"),
        ("euler", {"_class_name": "ScoreSdeVeScheduler"}, "variance-exploding"),
        ("own", {"_class_name": "DPMSolverSDEScheduler"}, "ignores the images' own streams"),
        ("own", {"_class_name": "MyScheduler"}, "diffusers has no scheduler 'MyScheduler'"),
        ("euler", {"_class_name": "MyScheduler"}, "which diffusers has not"),
        ("own?steps_ofset=1", VP, "did you mean steps_offset?"),
        ("own?beta_start=1", VP, "belongs to the trained network"),
        ("own/karras", VP, "it knows none"),
        ("flow_heun", {**FLOW, "use_dynamic_shifting": True}, "by the size of the picture"),
        ("dpmpp_2m", {**FLOW, "invert_sigmas": True}, "invert its sigmas"),
        ("dpmpp_2m/karras", FLOW, "betas, which a flow has not"),
        ("dpmpp_2m?final_sigmas_type=sigma_min", FLOW, "would leave noise"),
        ("unipc?sigmas=[1]", VP, "takes no list of sigmas"),
        ("heun?sigmas=[1]", VP, "takes no list of sigmas"),
        ("flow_euler?timesteps=[1000,500]", FLOW, "list sigmas"),
        ("flow_euler?sigmas=[1.5,0.5]", FLOW, "trained on 0 to 1"),
        ("euler?timesteps=[1000,1]", VP, "trained on 0 to 999"),
        ("euler?sigmas=[200,1]", VP, "trained on 0.0099"),
        (
            "euler",
            {**VP, "beta_schedule": "sigmoid"},
            "beta_schedule is 'sigmoid' in the checkpoint's",
        ),
        ("unipc", {**VP, "prediction_type": "foo"}, "prediction_type is 'foo' in the checkpoint's"),
        ("own", {**VP, "timestep_spacing": "evenly"}, "timestep_spacing is 'evenly' in the check"),
        ("unipc?use_dynamic_shifting=true", VP, "use_dynamic_shifting is of flow-matching models"),
        ("unipc?flow_shift=3", VP, "flow_shift is of flow-matching models"),
        ("ddpm?variance_type=learned", VP, "which is for a network that predicts a variance too"),
        ("euler/karras?sigma_max=0.1", VP, "as much picture as noise, or more"),
        ("euler?sigma_max=0.1", VP, "must lie above 1 (training ends at 157.4)"),
        ("euler/karras?sigma_max=300", VP, "trained on sigmas from 0.01 to 157.4"),
        ("unipc/karras?sigma_min=0.001", VP, "sigma_min is 0.001; the network was trained on"),
        ("euler/karras?sigma_min=6&sigma_max=5", VP, "sigmas must fall"),
        ("edm_euler?sigma_max=200", EDM, "trained on sigmas from 0.002 to 80"),
        ("edm_dpmpp_2m?sigma_max=0.4", EDM, "above 0.5"),
        ("own?sigma_min=2000", {"_class_name": "ScoreSdeVeScheduler"}, "from 0.01 to 1348"),
        ("flow_euler?base_image_seq_len=5000", FLOW, "the first must be the smaller one"),
        ("RePaintScheduler", VP, "cannot be used"),
        ("DDIMParallelScheduler", FLOW, "does not fit"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_drawn(
    name: str, own: Mapping[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        scheduler_for(parse_sampler(name), own)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "own", "steps", "said"),
    [
        ("pndm", VP, 3, "4 or more"),
        ("euler", VP, 0, "1 or more"),
        ("euler?timesteps=[999,500]", VP, 3, "which lists 2"),
        ("dpmpp_2m?timesteps=[999,500.5]", VP, 2, "list whole numbers"),
        ("ddim?timestep_spacing=trailing", VP, 61, "timesteps -1 to 999"),
        ("ddim?steps_offset=1", VP, 1000, "timesteps 1 to 1000"),
        ("ddim", VP, 1001, "it takes at most 1000"),
        ("dpmpp_2m", VP, 1000, "noise level twice"),
        ("dpmpp_2m", FLOW, 999, "noise level twice"),
        ("lcm", {"_class_name": "LCMScheduler"}, 51, "cannot take 51 steps"),
        ("kdpm2_a", VP, 2, "finite"),
        (
            "flow_euler",
            {**FLOW, "use_dynamic_shifting": True},
            5,
            "which only a pipeline's own call tells it",
        ),
        ("pndm", VP, 1001, "it takes at most 1000, the timesteps that its network was trained on"),
    ],
)
def test_steps_that_a_scheduler_cannot_take_are_refused(
    name: str, own: Mapping[str, Any], steps: int, said: str
) -> None:
    parsed = parse_sampler(name)
    with pytest.raises(ValueError, match=r".") as refused:
        set_steps(scheduler_for(parsed, own), parsed, steps)
    assert said in str(refused.value)


def test_a_step_that_fails_is_found_by_a_trial() -> None:
    own = {"_class_name": "EulerAncestralDiscreteScheduler", "prediction_type": "sample"}
    with pytest.raises(ValueError, match="own cannot take 5 steps: "):
        require_steps(parse_sampler("own"), own, 5)


def test_what_is_visited_is_what_is_done() -> None:
    name = parse_sampler("ddim")
    scheduler = scheduler_for(name, VP)
    done = set_steps(scheduler, name, 4)
    assert done.timesteps == (750.0, 500.0, 250.0, 0.0)
    assert done.sigmas[-1] == 0.0
    assert done == visited(scheduler)
    flow = parse_sampler("flow_euler?sigmas=[1,0.5]")
    done = set_steps(scheduler_for(flow, {**FLOW, "shift": 1.0}), flow, 2)
    assert done == Visited((1000.0, 500.0), (1.0, 0.5, 0.0))
    listed = parse_sampler("euler?sigmas=[14,3]")
    assert set_steps(scheduler_for(listed, VP), listed, 2).sigmas == (14.0, 3.0, 0.0)
    heun = parse_sampler("heun")
    done = set_steps(scheduler_for(heun, VP), heun, 3)
    assert done.timesteps == (999.0, 499.5, 499.5, 0.0, 0.0)


def test_eta_belongs_to_the_samplers_that_the_catalogue_says() -> None:
    for name, sampler in SAMPLERS.items():
        scheduler = scheduler_for(parse_sampler(name), {**SHORT, "_class_name": sampler.kind})
        assert takes_eta(scheduler) == sampler.eta, name
