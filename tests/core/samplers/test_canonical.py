"""Two spellings of one setting are one, for the checkpoint that they are written for."""

from __future__ import annotations

from typing import Any

import pytest

from ddim_core.samplers.canonical import canonical, is_own
from ddim_core.samplers.name import parse_sampler

VP = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "steps_offset": 1}
KARRAS = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("written", "own", "text"),
    [
        ("unipc?solver_order=2", VP, "unipc"),
        ("unipc?solver_order=3", VP, "unipc?solver_order=3"),
        ("euler?steps_offset=1", VP, "euler"),  # which from_config carries over
        ("euler?steps_offset=0", VP, "euler?steps_offset=0"),
        ("euler?steps_offset=0&timestep_spacing=linspace", {**VP, "steps_offset": 0}, "euler"),
        ("euler/linear", VP, "euler"),
        ("euler/linear", KARRAS, "euler/linear"),
        ("euler/karras", KARRAS, "euler"),
        ("own?clip_sample=true", VP, "own"),
        ("own", VP, "own"),
        ("DPMSolverMultistepScheduler", VP, "dpmpp_2m"),
        ("DPMSolverMultistepScheduler?solver_order=3", VP, "dpmpp_3m"),
        ("DPMSolverMultistepScheduler?solver_order=1", VP,
         "DPMSolverMultistepScheduler?solver_order=1"),
        ("euler?timesteps=[999,500]", VP, "euler?timesteps=[999,500]"),
        ("sigma-hat", VP, "sigma-hat"),
    ],
)  # fmt: skip
def test_what_need_not_be_said_is_left_out(written: str, own: dict[str, Any], text: str) -> None:
    assert canonical(parse_sampler(written), own).text == text


@pytest.mark.parametrize(
    ("written", "alike"),
    [("own", True), ("ddim", True), ("euler", False), ("ddim?clip_sample=true", False)],
)
def test_a_checkpoints_own_sampler_is_known_by_another_name(written: str, alike: bool) -> None:
    assert is_own(parse_sampler(written), {**VP, "clip_sample": False}) == alike
