"""Guidance at some noise levels alone, and on some channels alone."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_core.common.digest import digest, said_by
from ddim_core.diffusion.guidance import autoguided, guided, within
from ddim_core.diffusion.sampling import Denoiser
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec, SchedulerSpec
from ddim_core.samplers.families import levels_of, unless_all

X, T = torch.zeros(2, 4, 1, 1), torch.tensor([300.0, 300.0])
ASKED, NONE = torch.tensor([1, 2]), 7


def model(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """Its label, on every channel."""
    asked.append(len(x))
    return labels.float()[:, None, None, None].expand(len(x), 4, 1, 1)


asked: list[int] = []


def by_no_class(scale: float, *where: Any) -> Denoiser:
    return guided(model, ASKED, NONE, scale, *where)


def by_another(scale: float, *where: Any) -> Denoiser:
    """One that says of any image what the model says of none."""
    none = torch.full_like(ASKED, NONE)
    led, guide = (partial(model, labels=labels) for labels in (ASKED, none))
    return autoguided(led, guide, scale, *where)


@pytest.mark.parametrize("by", [by_no_class, by_another])
@pytest.mark.parametrize(
    ("scale", "inside", "channels", "expected", "rows"),
    [
        (3.0, None, None, [-8.0] * 4, 4),  # 7 + 3 (2 - 7)
        (3.0, True, None, [-8.0] * 4, 4),
        (3.0, False, None, [2.0] * 4, 2),
        (3.0, None, 3, [-8.0, -8.0, -8.0, 2.0], 4),
        (3.0, False, 3, [2.0] * 4, 2),
        (3.0, None, 9, [-8.0] * 4, 4),
        (0.0, True, None, [7.0] * 4, 2),
        (0.0, False, None, [2.0] * 4, 2),
        (0.0, None, 1, [7.0, 2.0, 2.0, 2.0], 4),
        (1.0, True, 3, [2.0] * 4, 2),
    ],
)
def test_it_is_guided_inside_and_on_its_channels_and_conditional_elsewhere(
    by: Any, scale: float, inside: bool | None, channels: int | None, expected: list[float],
    rows: int,
) -> None:  # fmt: skip
    asked.clear()
    where = None if inside is None else lambda t: inside and t == 300.0
    answer = by(scale, where, channels)(X, T)
    assert answer[1, :, 0, 0].tolist() == expected  # of the second image, channel by channel
    assert sum(asked) == rows


def test_both_ends_of_an_interval_are_in_it_whatever_float32_makes_of_them() -> None:
    for level in (0.3, 0.5, 0.7):
        told = float(torch.tensor(level * 1000.0)) / 1000
        assert within((0.3, 0.7), told)
    assert not within((0.3, 0.7), 0.2999)
    assert not within((0.3, 0.7), 0.7001)


def test_a_timestep_is_the_noise_level_that_its_family_has() -> None:
    flow = levels_of({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0})
    assert flow(250.0) == 0.25
    vp = levels_of({"_class_name": "DDPMScheduler"})
    a = NoiseSchedule.linear(1000, 1e-4, 0.02).at(500)
    assert vp(500) == pytest.approx(math.sqrt((1 - a) / a))
    assert vp(500) < vp(500.5) < vp(501)
    assert levels_of({"_class_name": "EDMEulerScheduler"})(math.log(2.0) / 4) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="tell no noise level"):
        levels_of({"_class_name": "LCMScheduler"})


def test_cells_that_are_guided_everywhere_keep_their_digests_and_what_their_rows_say() -> None:
    for spec in (SamplerSpec(5, guidance_scale=2.0), SchedulerSpec("unipc", 5)):
        assert not {"guidance_interval", "guidance_channels"} & set(said_by(spec))
    # As it was before there were intervals.
    before = "8f221beb6c1e9fe96f8a9dcb605ef6ef108d6a32dca67138e55ed8273c8e42e8"
    assert digest(SamplerSpec(5, guidance_scale=2.0)) == before
    some = SamplerSpec(5, guidance_scale=2.0, guidance_interval=(0, 1))
    assert digest(some) != before
    assert some.guidance_interval == (0.0, 1.0)
    assert some.line == "eta=0 (g=2 in [0,1])"


@pytest.mark.parametrize("interval", [(1.0, 0.5), (-1.0, 0.5), (0.5, 0.5), (0.0, math.inf)])
def test_an_interval_that_is_none_is_refused(interval: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="a low and a higher noise level"):
        SamplerSpec(5, guidance_interval=interval)


FLOW, EDM = {"_class_name": "FlowMatchEulerDiscreteScheduler"}, {"_class_name": "EDMHeunScheduler"}
VP = {"_class_name": "DDPMScheduler"}  # its levels: 0.010 to 157


@pytest.mark.parametrize(
    ("own", "sampler", "interval", "all_of_it"),
    [
        (FLOW, "flow_euler", (0.0, 1.0), True),
        (FLOW, "flow_euler", (0.0, 2.0), True),
        (FLOW, "flow_euler", (0.0, 0.99), False),
        (FLOW, "flow_euler?sigmas=[2,1]", (0.0, 1.0), False),
        (EDM, "own", (0.0, 80.0), True),
        (EDM, "own", (0.01, 80.0), False),
        (EDM, "edm_heun?S_churn=4", (0.0, 80.0), False),
        (EDM, "edm_heun?S_churn=4", (0.0, 114.0), True),
        (EDM, "edm_heun?sigma_max=100", (0.0, 80.0), False),
        (EDM | {"levels": [90.0, 0.0]}, "own", (0.0, 80.0), False),
        (VP, "ddim", (0.0, 158.0), True),
        (VP, "ddim", (0.0, 157.0), False),
        (VP, "ddim", (0.02, 158.0), False),
        ({"_class_name": "LCMScheduler"}, "own", (0.0, 1e9), False),
        (None, "own", (0.0, 1e9), False),
    ],
)
def test_an_interval_that_holds_every_level_of_a_run_is_none(
    own: dict[str, object] | None, sampler: str, interval: tuple[float, float], all_of_it: bool
) -> None:
    line = SamplerSpec(5) if sampler == "ddim" else SchedulerSpec(sampler, 5)
    assert unless_all(interval, line, own, None) == (() if all_of_it else interval)
    by_call = SchedulerSpec(sampler, 5, pipeline="StableDiffusion3Pipeline")
    assert unless_all(interval, by_call, own, None) == unless_all(interval, line, own, None)
    assert unless_all((), line, own, None) == ()


def test_another_noise_schedule_has_other_levels() -> None:
    short = NoiseSpec("linear", 10)
    assert unless_all((0.0, 2.0), SamplerSpec(5), VP, None) == (0.0, 2.0)
    assert unless_all((0.0, 2.0), SamplerSpec(5), VP, short) == ()
