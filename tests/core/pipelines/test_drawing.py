"""Images by pipelines' own calls: those of plain diffusers, and the same wherever they stand."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import callbacks

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.pipelines.arguments import Setting, plain_call
from ddim_core.pipelines.drawing import DrawnImages, draw, memory_words
from ddim_core.pipelines.fitting import where_it_asks
from ddim_core.pipelines.opening import OpenedPipeline, open_pipeline
from ddim_core.pipelines.stage import own_copy
from ddim_core.samplers.families import levels_of
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for
from ddim_core.samplers.streams import image_streams
from tests.core.pipelines.tiny import PIPELINES, opened_of

PAIRS = [(name, sampler) for name, tiny in PIPELINES.items() for sampler in ("own", *tiny.samplers)]
SEED, BATCH, STEPS = 7, 2, 2
LEVEL = 1  # of 255: the pipelines' own rounding of pixels is done in another order


@functools.cache
def made(name: str) -> Any:
    pipeline = PIPELINES[name].make()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


def setting(name: str, sampler: str, eta: float = 0.0) -> Setting:
    read = parse_sampler(sampler)
    return Setting(read, read.n_listed or STEPS, PIPELINES[name].guidance, eta, SEED)


def drawn(name: str, opened: OpenedPipeline, sampler: str, ks: Sequence[int]) -> DrawnImages:
    tiny = PIPELINES[name]
    return draw(opened, setting(name, sampler), ks, tiny.conditions(ks), BATCH)


def plain(
    name: str,
    opened: OpenedPipeline,
    asked: Setting,
    ks: Sequence[int],
    monkeypatch: pytest.MonkeyPatch,
    **more: Any,
) -> np.ndarray:
    """The same images by diffusers alone: a fresh pipeline, given x_T and the images' streams."""
    pipeline, tiny = made(name), PIPELINES[name]
    scheduler = scheduler_for(asked.sampler, opened.scheduler)
    pipeline.scheduler = scheduler
    streams = image_streams(SEED, ks)
    x_T = ImageNoise(SEED, ks, opened.shape).x_T()
    known = inspect.signature(pipeline.__call__).parameters
    told: dict[str, Any] = {
        key: value.tolist() if key == "class_labels" else value.expand(len(ks), *value.shape[1:])
        for key, value in tiny.conditions(ks).items()
    }
    told |= {"batch_size": len(ks)} if "batch_size" in known else {}
    told |= {"guidance_scale": tiny.guidance} if "guidance_scale" in known else {}
    told |= {"negative_prompt": None} if "negative_prompt" in known else {}
    told |= {"use_resolution_binning": False} if "use_resolution_binning" in known else {}
    told |= {"height": opened.height, "width": opened.width} if "height" in known else {}
    told |= {"eta": asked.eta} if "eta" in known else {}
    told |= {"timesteps": list(asked.sampler.timesteps)} if asked.sampler.timesteps else {}
    told |= {"sigmas": list(asked.sampler.own_sigmas)} if asked.sampler.own_sigmas else {}
    if "generator" in inspect.signature(scheduler.step).parameters and not opened.hands_streams:
        doubled = streams * 2 if name == "dit" else streams
        scheduler.step = functools.partial(scheduler.step, generator=doubled)
    with monkeypatch.context() as patch:
        if "latents" in known:
            told["latents"] = x_T
        else:  # what it draws itself
            module = sys.modules[type(pipeline).__module__]
            patch.setattr(module, "randn_tensor", lambda *args, **kwargs: x_T)
        images = pipeline(
            **{**told, **more}, generator=streams, num_inference_steps=asked.steps,
            output_type="np",
        ).images  # fmt: skip
    return np.rint(images * 255.0).astype(np.uint8)


@pytest.mark.parametrize(("name", "sampler"), PAIRS)
def test_images_are_those_of_plain_diffusers_with_the_same_noise(
    name: str, sampler: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_of(name, folder)
    ks = [5, 2]
    mine = drawn(name, opened, sampler, ks).images
    theirs = plain(name, opened, setting(name, sampler), ks, monkeypatch)
    assert mine.std() > 10.0
    assert np.abs(mine.astype(int) - theirs.astype(int)).max() <= LEVEL


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("last", [False, True])
def test_an_image_has_one_face_wherever_it_stands_and_when_more_are_drawn(
    name: str, last: bool, folder: Path
) -> None:
    opened = opened_of(name, folder)
    sampler = PIPELINES[name].samplers[-1] if last else "own"
    whole = drawn(name, opened, sampler, range(3)).images
    parts = [drawn(name, opened, sampler, ks).images for ks in (range(2), range(2, 3))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    turned = [2, 0]
    np.testing.assert_array_equal(drawn(name, opened, sampler, turned).images, whole[turned])


def test_eta_reaches_the_step_whether_or_not_the_call_takes_it(folder: Path) -> None:
    for name in ("sd15", "dit"):
        opened, tiny = opened_of(name, folder), PIPELINES[name]
        by_eta = [
            draw(opened, setting(name, "ddim", eta), [0], tiny.conditions([0]), 2).images
            for eta in (0.0, 1.0)
        ]
        assert not np.array_equal(*by_eta)


@pytest.mark.parametrize(
    ("name", "sampler", "steps", "nfe"),
    [
        ("ddpm", "own", 2, 2),
        ("dit", "own", 2, 4),  # guidance doubles the batch
        ("sd3", "flow_heun", 2, 6),  # Heun asks twice a step, once in the last
        ("flux", "own", 2, 2),  # guidance is told to the network
    ],
)
def test_evaluations_are_counted_as_they_happen(
    name: str, sampler: str, steps: int, nfe: int, folder: Path
) -> None:
    assert drawn(name, opened_of(name, folder), sampler, [0]).nfe == nfe


NOWHERE, CUTOFFS = (1e8, 1e9), {
    "sd15": callbacks.SDCFGCutoffCallback, "sdxl": callbacks.SDXLCFGCutoffCallback,
    "sd3": callbacks.SD3CFGCutoffCallback,
}  # fmt: skip


def from_noise(opened: OpenedPipeline, asked: Setting, n: int) -> Setting:
    """A setting with guidance at the n noisiest of its evaluations alone."""
    visited = where_it_asks(opened, replace(asked, interval=None)).timesteps
    levels = [levels_of(opened.scheduler)(t) for t in visited]
    return replace(asked, interval=((levels[n - 1] + levels[n]) / 2, levels[0]))


@pytest.mark.parametrize("name", CUTOFFS)
def test_an_interval_without_the_last_steps_is_diffusers_own_cutoff_of_guidance(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_of(name, folder)
    asked = from_noise(opened, replace(setting(name, "own"), steps=5, guidance=30.0), 1)
    cutoff = CUTOFFS[name](cutoff_step_ratio=None, cutoff_step_index=0)  # after the first step
    mine = draw(opened, asked, [5], PIPELINES[name].conditions([5]), 1)
    more = {"guidance_scale": 30.0}
    theirs = plain(name, opened, asked, [5], monkeypatch, callback_on_step_end=cutoff, **more)
    guided = plain(name, opened, asked, [5], monkeypatch, **more)
    assert np.abs(mine.images.astype(int) - theirs.astype(int)).max() <= LEVEL
    assert np.abs(guided.astype(int) - theirs.astype(int)).max() > 4 * LEVEL
    assert mine.nfe == 2 + 4


@pytest.mark.parametrize(
    ("name", "sampler", "n", "nfe"),
    [
        ("dit", "own", 1, 5),  # the class's half is the first
        ("dit", "ddim", 2, 6),
        ("sd15", "pndm?skip_prk_steps=true", 3, 8),  # asks once more than there are steps
        ("sdxl", "euler_a", 1, 5),
        ("sd3", "flow_heun", 3, 10),  # asks 7 times in 4 steps
        ("pixart_sigma", "own", 1, 5),  # learns a variance
        ("sana", "unipc", 3, 7),
    ],
)
def test_guidance_is_left_out_outside_of_an_interval(
    name: str, sampler: str, n: int, nfe: int, folder: Path
) -> None:
    opened, ks = opened_of(name, folder), [3, 1, 2]
    conditions = PIPELINES[name].conditions(ks)
    asked = replace(setting(name, sampler), steps=4)

    def made_of(**more: Any) -> DrawnImages:
        return draw(opened, replace(asked, **more), ks, conditions, BATCH)

    none, guided = made_of(guidance=1.0), made_of()
    outside, inside = made_of(interval=NOWHERE), made_of(interval=(0.0, 1e4))
    np.testing.assert_array_equal(outside.images, none.images)  # u + g (c - u) is c at u = c
    np.testing.assert_array_equal(inside.images, guided.images)
    assert (outside.nfe, inside.nfe) == (none.nfe, guided.nfe)
    part = draw(opened, from_noise(opened, asked, n), ks, conditions, BATCH)
    assert part.nfe == nfe
    for other in (none, guided):
        assert not np.array_equal(part.images, other.images)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["ddpm", "dit", "sd15", "sd3"])
def test_half_precision_draws_nearly_the_same_images(name: str, dtype: str, folder: Path) -> None:
    whole = drawn(name, opened_of(name, folder), "dpmpp_2m_sde" if name != "sd3" else "own", [0, 1])
    half = open_pipeline(folder / name, dtype)
    images = drawn(name, half, "dpmpp_2m_sde" if name != "sd3" else "own", [0, 1]).images
    # bfloat16 has 8 bits: a level of 255 each time a tensor is rounded, and there are dozens.
    assert 0 < np.abs(images.astype(int) - whole.images).mean() < 8.0


def test_the_arguments_of_a_plain_call_draw_the_same(folder: Path) -> None:
    opened, tiny = opened_of("flux", folder), PIPELINES["flux"]
    asked = setting("flux", "flow_euler?sigmas=[1.0,0.4]")
    told = plain_call(opened.takes, asked, opened.size)
    assert told == {
        "num_inference_steps": 2, "guidance_scale": 3.5, "sigmas": [1.0, 0.4], "height": 16,
        "width": 16,
    }  # fmt: skip
    x_T = ImageNoise(SEED, [0], opened.shape).x_T()
    pipeline = own_copy(opened.pipeline, scheduler_for(asked.sampler, opened.scheduler))
    plainly = pipeline(**told, **tiny.conditions([0]), latents=x_T, output_type="np").images
    mine = draw(opened, asked, [0], tiny.conditions([0]), 1).images
    assert np.abs(mine - np.rint(plainly * 255.0)).max() <= LEVEL


def test_guidance_of_one_asks_once_a_step(folder: Path) -> None:
    opened, tiny = opened_of("sd15", folder), PIPELINES["sd15"]
    made_of = draw(opened, Setting(parse_sampler("own"), 2), [0], tiny.conditions([0]), 2)
    assert made_of.nfe == 2


def test_threads_draw_from_one_pipeline_at_once(folder: Path) -> None:
    """Each with a guidance, steps and a scheduler of its own."""
    opened, tiny = opened_of("sd15", folder), PIPELINES["sd15"]
    cells = [
        Setting(parse_sampler(sampler), steps, guidance, 0.0, SEED)
        for sampler, steps, guidance in (
            ("own", 2, 1.0), ("euler_a", 3, 5.0), ("dpmpp_2m_sde", 4, 2.0), ("own", 3, 7.0),
        )
    ]  # fmt: skip

    def one(cell: Setting) -> np.ndarray:
        return draw(opened, cell, [0, 1], tiny.conditions([0, 1]), 2).images

    alone = [one(cell) for cell in cells]
    with ThreadPoolExecutor(4) as threads:
        for mine, theirs in zip(alone, threads.map(one, cells), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_the_global_stream_and_the_opened_pipeline_stay_as_they_were(folder: Path) -> None:
    opened = opened_of("dit", folder)
    torch.manual_seed(3)
    before, scheduler = torch.get_rng_state(), opened.pipeline.scheduler
    state = dict(vars(scheduler))
    drawn("dit", opened, "dpmpp_2m_sde", [0])
    assert torch.equal(torch.get_rng_state(), before)
    assert opened.pipeline.scheduler is scheduler
    assert dict(vars(scheduler)) == state
    assert "forward" not in vars(opened.pipeline.transformer)


@pytest.mark.parametrize(
    ("error", "lower"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "lower batch_size"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"), "lower batch_size"),
    ],
)
def test_running_out_of_memory_is_told_with_what_to_lower(error: Exception, lower: str) -> None:
    with pytest.raises(MemoryError, match=f"at batch_size 16; {lower}"), memory_words(16):
        raise error
    with pytest.raises(RuntimeError, match="shapes"), memory_words(16):
        raise RuntimeError("shapes differ")
