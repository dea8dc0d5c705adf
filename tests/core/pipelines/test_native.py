"""DDIM by a pipeline's call and by our own loop: the same images, within one level of 255."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from ddim_core.checkpoints.checkpoint import load_checkpoint
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.prompts import encode_prompts
from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.small_base import new_pipeline, save_base
from ddim_core.text2image.specs import BaseSpec
from tests.core.pipelines import tiny

SMALL = BaseSpec(resolution=8, widths=(8, 16), text_width=16, text_layers=1, heads=2, max_tokens=7)
PROMPTS = ["a red ball", "a blue box", "a ball"]
KS, SEED, STEPS = [0, 1, 2], 3, 3


def native(folder: Path, spec: SamplerSpec, prompts: list[str]) -> np.ndarray:
    checkpoint = load_checkpoint(folder)
    x_T = ImageNoise(SEED, KS, checkpoint.noise_shape).x_T()
    with torch.inference_mode():
        model = conditioned(checkpoint, KS, spec.guidance_scale, prompts=prompts)
        *_, last = sample(model, checkpoint.schedule, spec, x_T)
        return to_uint8(checkpoint.images(last.x))


def test_pixels(tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler()
    diffusers.DDIMPipeline(tiny.pixel_unet(), scheduler).save_pretrained(tmp_path / "ddim")
    spec = SamplerSpec(STEPS, spacing="leading", clip=True)
    theirs = native(tmp_path / "ddim", spec, [])
    opened = open_pipeline(tmp_path / "ddim")
    mine = draw(opened, Setting(parse_sampler("ddim"), STEPS, seed=SEED), KS, {}, 3).images
    assert np.abs(mine.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(("v", "guidance"), [(False, 1.0), (True, 4.0)])
def test_latents_for_prompts(v: bool, guidance: float, tmp_path: Path) -> None:
    """The native last step lands on clean data, which is set_alpha_to_one."""
    pipeline = new_pipeline(SMALL, PROMPTS)
    if not v:
        told = {**tiny.SCALED, "clip_sample": False, "steps_offset": 1, "set_alpha_to_one": True}
        pipeline.register_modules(scheduler=diffusers.DDIMScheduler(**told))
    save_base(pipeline, tmp_path / "sd")
    spec = SamplerSpec(
        STEPS, spacing="trailing" if v else "leading", steps_offset=0 if v else 1,
        prediction_type="v_prediction" if v else "epsilon", guidance_scale=guidance,
    )  # fmt: skip
    theirs = native(tmp_path / "sd", spec, PROMPTS)
    opened = open_pipeline(tmp_path / "sd")
    asked = Setting(parse_sampler("ddim"), STEPS, guidance, seed=SEED)
    mine = draw(opened, asked, KS, encode_prompts(opened, PROMPTS), 3).images
    assert mine.std() > 10.0
    assert np.abs(mine.astype(int) - theirs).max() <= 1
