"""The loop on a tiny base of the XL kind: two text encoders, sizes told to the U-Net."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

from ddim_core.lora.export import save_diffusers, save_kohya
from ddim_core.lora.pipeline import pipeline_with, portrait
from ddim_core.lora.reload import load_file_into
from ddim_core.lora.specs import LoraSpec, PictureSpec
from ddim_core.lora.texts import embed_prompts
from ddim_core.lora.training.run import CHECKPOINT, history_of, run
from ddim_core.text2image.base_folder import load_pipeline, locate_base
from ddim_core.text2image.families import XL, clip_of, family_of
from tests.lora.material import small_job
from tests.lora.tiny_base import write_tiny_xl_base

PROMPT, PICTURES = "a photo of sks cat", PictureSpec(steps=2, guidance=2.0)
SPEC = LoraSpec(steps=3, batch_size=2, learning_rate=1e-2, text_encoder=True)


@pytest.fixture(scope="module")
def xl_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_xl_base(tmp_path_factory.mktemp("xl") / "tiny-xl")


def test_an_xl_base_is_known_as_one(xl_base: Path, base: Path) -> None:
    assert family_of(locate_base(str(xl_base))) is XL
    assert family_of(base) is not XL


def test_xl_embeddings_are_those_of_the_pipeline(xl_base: Path) -> None:
    ours = embed_prompts(xl_base, [PROMPT])
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl_base)
    states, _, pooled, _ = pipeline.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    assert torch.equal(torch.from_numpy(ours["states"]), states)
    assert torch.equal(torch.from_numpy(ours["pooled"]), pooled)


def test_an_xl_lora_trains_and_both_layouts_give_it_back(xl_base: Path, tmp_path: Path) -> None:
    for _ in run(small_job(xl_base, SPEC), tmp_path):
        pass
    weights = load_file(tmp_path / CHECKPOINT.format(SPEC.steps))
    assert {name.split(".")[0] for name in weights} == {"unet", "text_encoder", "text_encoder_2"}
    pipeline = pipeline_with(xl_base, SPEC, weights)
    trained = portrait(pipeline, PROMPT, PICTURES)
    files = [save_diffusers(tmp_path / "d", pipeline.unet, clip_of(pipeline)),
             tmp_path / "k" / "xl.safetensors"]  # fmt: skip
    save_kohya(files[1], pipeline.unet, clip_of(pipeline), SPEC, "xl")
    for file in files:
        again_pipeline = load_pipeline(xl_base)
        load_file_into(again_pipeline, file)
        again = portrait(again_pipeline, PROMPT, PICTURES)
        assert set(again) == set(trained)
        assert all(torch.equal(again[name], trained[name]) for name in trained)


def test_what_is_told_of_sizes_matters(xl_base: Path, tmp_path: Path) -> None:
    """The embedded path, without a text encoder's LoRA, feeds pooled vectors and sizes."""
    job = small_job(xl_base, replace(SPEC, text_encoder=False))
    for _ in run(job, tmp_path / "a"):
        pass
    bigger = {k: 2.0 * v if k.startswith("sizes") else v for k, v in job.latents.items()}
    for _ in run(replace(job, latents=bigger), tmp_path / "b"):
        pass
    assert history_of(tmp_path / "a")[0][0] != history_of(tmp_path / "b")[0][0]
