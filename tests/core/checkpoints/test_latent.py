"""Latent pipelines: noise of latents, embeddings of prompts, pixels at the end, as diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, LDMPipeline, StableDiffusionPipeline

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ddim_core.checkpoints.conditioning import conditioned
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.diffusion.sampling import ImageNoise, sample
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.text2image.prompts import read_prompts
from tests.core.foreign_files import latent_pipeline, text_pipeline

# Float32 rounding through four steps, guidance and a decoder, on pixels of about 0.5; diffusers
# works its coefficients out in float32. Measured worst: 4e-6.
FLOAT32 = 5e-5
# Diffusers ends at alpha_bar of timestep 0, we at clean data: its last step is left to it.
SPEC = SamplerSpec(steps=4, spacing="leading", guidance_scale=2.5)
PROMPTS = ["a cat", "two dogs", "a house by the sea"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_pipeline(tmp_path_factory.mktemp("text") / "pipeline")


@pytest.fixture(scope="module")
def latent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return latent_pipeline(tmp_path_factory.mktemp("latent") / "pipeline")


def opened(folder: Path, out: Path) -> Checkpoint:
    out.mkdir()
    adopt(source_files(folder), out)
    return load_checkpoint(out)


def drawn(checkpoint: Checkpoint, indices: list[int], prompts: list[str], spec: SamplerSpec):
    noise = ImageNoise(0, indices, checkpoint.noise_shape, "cpu")
    model = conditioned(checkpoint, indices, spec.guidance_scale, prompts=prompts)
    *_, last = sample(model, checkpoint.schedule, spec, noise.x_T(), noise)
    return checkpoint.images(last.x)


def test_stable_diffusion_draws_what_diffusers_draws(text: Path, tmp_path: Path) -> None:
    checkpoint = opened(text, tmp_path / "out")
    assert (checkpoint.resolution, checkpoint.channels) == (16, 3)
    assert checkpoint.noise_shape == (4, 8, 8)
    pipeline = StableDiffusionPipeline.from_pretrained(text, local_files_only=True)
    config = {**pipeline.scheduler.config, "set_alpha_to_one": True, "steps_offset": 0}
    pipeline.scheduler = DDIMScheduler.from_config(config)
    pipeline.set_progress_bar_config(disable=True)
    latents = ImageNoise(0, [0, 1, 2], checkpoint.noise_shape, "cpu").x_T()
    expected = pipeline(
        PROMPTS, num_inference_steps=4, guidance_scale=2.5, latents=latents.clone(),
        output_type="pt", height=16, width=16,
    ).images  # fmt: skip
    got = (drawn(checkpoint, [0, 1, 2], PROMPTS, SPEC) / 2 + 0.5).clamp(0, 1)
    assert expected.std() > 0.05
    assert (got - expected).abs().max() < FLOAT32


def test_a_safety_checker_stays_behind_and_diffusers_opens_the_rest(
    text: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(text, tmp_path / "copy")
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (folder / "model_index.json").write_text(json.dumps(index))
    opened(folder, tmp_path / "out")
    StableDiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)


def test_an_unconditional_latent_pipeline_draws_what_diffusers_draws(
    latent: Path, tmp_path: Path
) -> None:
    checkpoint = opened(latent, tmp_path / "out")
    assert (checkpoint.resolution, checkpoint.noise_shape) == (16, (4, 8, 8))
    pipeline = LDMPipeline.from_pretrained(latent, local_files_only=True)
    spec = SamplerSpec(steps=4, spacing="leading")
    *_, last = sample(checkpoint.model, checkpoint.schedule, spec, latents := _latents(checkpoint))
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(4)
    x = latents
    for t in scheduler.timesteps:
        with torch.no_grad():
            x = scheduler.step(pipeline.unet(x, t).sample, t, x, eta=0.0).prev_sample
    with torch.no_grad():
        expected = pipeline.vqvae.decode(x / pipeline.vqvae.config.scaling_factor).sample
    assert (checkpoint.images(last.x) - expected).abs().max() < FLOAT32


def _latents(checkpoint: Checkpoint) -> torch.Tensor:
    return ImageNoise(0, [0, 1], checkpoint.noise_shape, "cpu").x_T()


def test_an_image_keeps_its_bits_and_its_prompt_whatever_is_drawn_beside_it(
    text: Path, tmp_path: Path
) -> None:
    checkpoint = opened(text, tmp_path / "out")
    together = drawn(checkpoint, [0, 1, 2, 3, 4], PROMPTS, SPEC)
    assert torch.equal(drawn(checkpoint, [4], PROMPTS, SPEC)[0], together[4])
    # image 4 is drawn for prompt 4 mod 3
    alone = drawn(checkpoint, [4], [PROMPTS[1]], SPEC)[0]
    assert torch.equal(alone, together[4])
    assert not torch.equal(drawn(checkpoint, [4], [PROMPTS[0]], SPEC)[0], together[4])


def test_a_text_model_needs_prompts_and_no_other_takes_them(
    text: Path, latent: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="there are no prompts"):
        conditioned(opened(text, tmp_path / "one"), [0], 1.0)
    with pytest.raises(ValueError, match="told of no text"):
        conditioned(opened(latent, tmp_path / "two"), [0], 1.0, prompts=["a cat"])


@pytest.mark.parametrize("part", ["text_encoder", "vae", "unet"])
def test_a_pipeline_that_lacks_a_part_is_refused(part: str, text: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text, tmp_path / "copy")
    shutil.rmtree(folder / part)
    with pytest.raises(ValueError, match=f"names the part '{part}', which is not there"):
        opened(folder, tmp_path / "out")


def test_prompts_are_lines_or_captions(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n\n  a dog \n")
    assert read_prompts(str(tmp_path / "a.txt")) == ["a cat", "a dog"]
    lines = '{"file_name": "0.png", "text": "a cat"}\n{"file_name": "1.png", "text": "a dog"}\n'
    (tmp_path / "b.jsonl").write_text(lines)
    assert read_prompts(str(tmp_path / "b.jsonl")) == ["a cat", "a dog"]
    for text, message in (("", "no prompt"), ("{}", "has no text"), ("[", "not JSON")):
        (tmp_path / "b.jsonl").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_prompts(str(tmp_path / "b.jsonl"))
    (tmp_path / "c.txt").write_bytes(np.random.default_rng(0).bytes(99))
    with pytest.raises(ValueError, match="no UTF-8"):
        read_prompts(str(tmp_path / "c.txt"))
    with pytest.raises(ValueError, match="no file of prompts"):
        read_prompts(str(tmp_path / "nowhere"))


def test_a_card_encodes_the_prompts_of_a_batch_in_one_call(text: Path, tmp_path: Path) -> None:
    plain = opened(text, tmp_path / "out")
    carded = load_checkpoint(tmp_path / "out", on_card=True)
    assert plain.prompts is not None
    assert carded.prompts is not None
    asked: list[int] = []
    for encoder in (plain.prompts.text_encoder, carded.prompts.text_encoder):
        encoder.register_forward_pre_hook(
            lambda module, args, kwargs: asked.append(len(args[0])), with_kwargs=True
        )
    one_by_one, at_once = plain.prompts(PROMPTS), carded.prompts(PROMPTS)
    assert asked == [1, 1, 1, 3]
    torch.testing.assert_close(at_once, one_by_one, atol=1e-5, rtol=1e-5)
