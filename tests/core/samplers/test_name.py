"""A sampler's name: one spelling for equal settings, a sentence for what makes no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ddim_core.samplers.catalogue import NAMES, REFUSED, SAMPLERS
from ddim_core.samplers.name import SamplerName, parse_sampler, split_samplers


@pytest.mark.parametrize("name", NAMES)
def test_every_name_reads_as_itself(name: str) -> None:
    assert parse_sampler(name) == SamplerName(name)
    assert parse_sampler(name).text == name


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (" dpmpp_2m/karras ", "dpmpp_2m/karras"),
        ("euler?steps_offset=1.0", "euler?steps_offset=1"),
        ("euler?steps_offset=1&final_sigmas_type=sigma_min",
         "euler?final_sigmas_type=sigma_min&steps_offset=1"),
        ('euler?final_sigmas_type="sigma_min"', "euler?final_sigmas_type=sigma_min"),
        ("DDIMScheduler", "ddim"),
        ("EulerDiscreteScheduler/beta", "euler/beta"),
        ("DPMSolverMultistepScheduler", "DPMSolverMultistepScheduler"),
        ("DPMSolverMultistepScheduler?solver_order=3&algorithm_type=dpmsolver",
         "DPMSolverMultistepScheduler?algorithm_type=dpmsolver&solver_order=3"),
        ("DPMSolverMultistepScheduler?solver_order=3&algorithm_type=dpmsolver++&lower_order_final=false",
         "dpmpp_3m?lower_order_final=false"),
        ("euler?steps_offset=1&sigmas=[14,3]", "euler?sigmas=[14,3]&steps_offset=1"),
        ("euler?timesteps=[999.0, 850, 0.5]", "euler?timesteps=[999,850,0.5]"),
        ("euler?sigmas=[14.6, 1e0, 0]", "euler?sigmas=[14.6,1]"),
        ("unipc?disable_corrector=[0,1]", "unipc?disable_corrector=[0,1]"),
        ("own?clip_sample=true", "own?clip_sample=true"),
        ("own?trick=null", "own?trick=null"),
        ('own?a="1"&b="x y"', 'own?a="1"&b="x y"'),
    ],
)  # fmt: skip
def test_equal_settings_have_one_text_which_reads_back(written: str, text: str) -> None:
    name = parse_sampler(written)
    assert name.text == text
    assert parse_sampler(text) == name
    floats = {key: tuple(map(float, getattr(name, key))) for key in ("timesteps", "own_sigmas")}
    assert replace(name, **floats).text == text  # whoever made the list


def test_lists_of_samplers_are_split_outside_brackets_and_quotes() -> None:
    text = 'own, euler?timesteps=[999,1],own?a="x,y",'
    assert split_samplers(text) == ["own", "euler?timesteps=[999,1]", 'own?a="x,y"']


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "there is no sampler ''"),
        ("eular", "did you mean euler?"),
        ("DPMPP_2M", "did you mean dpmpp_2m?"),
        ("sigma_hat", "did you mean sigma-hat?"),
        ("UniPCMultistepSchedular", "there is no sampler"),
        ("UniPCMultiScheduler", "did you mean UniPCMultistepScheduler?"),
        ("euler/karas", "did you mean karras?"),
        ("euler/", "has the rule of sigmas ''"),
        ("euler/lu", "it knows karras, exponential, beta, linear"),
        ("ddim/karras", "it knows none"),
        ("euler?", "ends after its question mark"),
        ("euler?steps_offset", "key=value"),
        ("euler?steps_offset=1&steps_offset=2", "twice"),
        ("euler?steps_ofset=1", "did you mean steps_offset?"),
        ("euler?steps_offset={}", "steps_offset is {}"),
        ("euler?sigma_min=NaN", "finite"),
        ("euler?sigma_min=[1", "JSON value"),
        ("dpmpp_2m?solver_order=3", "leave solver_order out"),
        ("euler?use_karras_sigmas=true", "euler/karras"),
        ("euler?prediction_type=sample", "belongs to the trained network"),
        ("ddim?beta_end=0.01", "belongs to the trained network"),
        ("euler?num_train_timesteps=500", "belongs to the trained network"),
        ("ddim?rescale_betas_zero_snr=true", "belongs to the trained network"),
        ("dpmpp_2m?use_flow_sigmas=true", "belongs to the trained network"),
        ("sa_solver?tau_func=1", "has no key 'tau_func'"),
        ("euler?timesteps=[1,999]", "must fall"),
        ("euler?timesteps=[999,999]", "must fall"),
        ("euler?timesteps=[999,-1]", "0 or more"),
        ("euler?sigmas=[0]", "above 0"),
        ("euler?timesteps=[]", "timesteps is []"),
        ("euler?timesteps=[true]", "list of numbers"),
        ("euler?timesteps=999", "list of numbers"),
        ("euler?timesteps=[999]&sigmas=[1]", "give one of them"),
        ("euler/karras?timesteps=[999]", "give one"),
        ("ddpm?variance_type=foo", "variance_type is 'foo'; for DDPMScheduler it must be fixed_sm"),
        ("unipc?solver_type=zzz", "for UniPCMultistepScheduler it must be bh1 or bh2"),
        ("dpmpp_2m?solver_type=bh2", "it must be midpoint or heun"),
        ("DPMSolverMultistepScheduler?algorithm_type=dpmsolver+", "did you mean dpmsolver++?"),
        ("lcm?timestep_spacing=evenly", "it must be linspace or leading or trailing"),
        ("euler?interpolation_type=log", "linear or log_linear"),
        ("euler/karras?sigma_max=foo", "sigma_max is foo; it must be a number above 0"),
        ("flow_euler?shift=0", "shift is 0; it must be a number above 0"),
        ("flow_euler?shift_terminal=1", "above 0 and below 1"),
        ("ddim?steps_offset=1.5", "steps_offset is 1.5; it must be a whole number of at least 0"),
        ("ddim?thresholding=true&dynamic_thresholding_ratio=2", "above 0, at most 1"),
        ("lcm?original_inference_steps=0", "a whole number of at least 1"),
        ("unipc?solver_order=4", "it must be 1, 2 or 3"),
        ("unipc?disable_corrector=[0.5]", "a list of whole numbers"),
        ("edm_euler?rho=0", "rho is 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse_sampler(written)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", REFUSED)
def test_classes_that_draw_no_image_of_ours_are_refused_with_the_reason(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} cannot be used: "):
        parse_sampler(kind)


def test_the_page_on_samplers_has_every_name_with_its_class() -> None:
    page = (Path(__file__).parents[3] / "docs" / "samplers.md").read_text()
    for name, sampler in SAMPLERS.items():
        assert f"| `{name}` | `{sampler.kind}`" in page
