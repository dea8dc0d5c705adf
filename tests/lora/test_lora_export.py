"""Exported files give back the trained weights, exactly, in every kind of LoRA."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from ddim_core.lora.export import DIFFUSERS_NAME, save_diffusers, save_kohya
from ddim_core.lora.pipeline import PICTURE, pipeline_with, portrait
from ddim_core.lora.reload import load_file_into
from ddim_core.lora.specs import LoraSpec, PictureSpec
from ddim_core.lora.training.run import CHECKPOINT, run
from ddim_core.safe_files.loras.files import epoch_files, lora_bytes
from ddim_core.text2image.base_folder import load_pipeline
from ddim_core.text2image.families import clip_of
from tasks.lora.export import _compared
from tests.lora.material import small_job

ALL = ("attention", "feed-forward", "convolutions")
KINDS = {
    "plain": {},
    "dropout": {"dropout": 0.5, "text_encoder": True},  # of training alone
    "alpha": {"alpha": 9.0},
    "rslora": {"rslora": True, "alpha": 3.0},
    "everything": {"targets": ALL, "text_encoder": True, "rslora": True},
    "dora": {"targets": ALL, "text_encoder": True, "dora": True, "alpha": 2.0},
}
PROMPT, PICTURES = "a photo of sks cat", PictureSpec(steps=3, guidance=3.0)


@cache
def exported(base: Path, kind: str) -> tuple[dict[str, torch.Tensor], list[Path]]:
    """A trained LoRA's portrait, and its files in both layouts, beside the base."""
    folder = base.with_name(f"exported-{kind}")
    spec = LoraSpec(steps=2, batch_size=2, learning_rate=1e-2, **KINDS[kind])
    for _ in run(small_job(base, spec), folder / "work"):
        pass
    weights = load_file(folder / "work" / CHECKPOINT.format(2))
    pipeline = pipeline_with(base, spec, weights)
    unet, encoders = pipeline.unet, clip_of(pipeline)
    files = [save_diffusers(folder / "diffusers", unet, encoders), folder / "k" / "x.safetensors"]
    save_kohya(files[1], unet, encoders, spec, "x")
    return portrait(pipeline, PROMPT, PICTURES), files


@cache
def bare_picture(base: Path) -> torch.Tensor:
    return portrait(load_pipeline(base), PROMPT, PICTURES)[PICTURE]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_both_layouts_give_back_weights_scaling_and_picture(base: Path, kind: str) -> None:
    trained, files = exported(base, kind)
    assert any(name.endswith("scaling") for name in trained)
    read = files[0].with_name("as_read.safetensors")  # by `ddim lora-score` and `ddim grid --lora`
    read.write_bytes(lora_bytes(*epoch_files(files[0])))
    assert read.read_bytes() != files[0].read_bytes()  # its header says less
    for file in (*files, read):
        pipeline = load_pipeline(base)
        load_file_into(pipeline, file)
        again = portrait(pipeline, PROMPT, PICTURES)
        assert set(again) == set(trained)
        differing = [name for name in trained if not torch.equal(again[name], trained[name])]
        assert differing == []
    assert not torch.equal(bare_picture(base), trained[PICTURE])  # the LoRA does something


def test_kohyas_names_and_alphas_are_those_that_web_uis_look_for(base: Path) -> None:
    _, files = exported(base, "everything")
    weights = load_file(files[1])
    layers = {name.split(".")[0] for name in weights}
    ends = {name.split(".", 1)[1] for name in weights}
    assert ends == {"lora_down.weight", "lora_up.weight", "alpha"}
    assert all(layer.startswith(("lora_unet_", "lora_te_text_model_encoder_")) for layer in layers)
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q" in layers
    alphas = {float(weights[f"{layer}.alpha"]) for layer in layers}
    assert alphas == {8.0}  # s rank = (4 / sqrt(4)) 4


def test_metadata_lets_diffusers_restore_the_scaling(base: Path) -> None:
    _, files = exported(base, "rslora")
    assert files[0].name == DIFFUSERS_NAME
    with safe_open(files[0], "pt") as file:
        assert "lora_adapter_metadata" in file.metadata()
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    pipeline.load_lora_weights(files[0].parent)
    layer = next(m for m in pipeline.unet.modules() if hasattr(m, "lora_A"))
    assert list(layer.scaling.values()) == [3.0 / 4**0.5]


def test_a_file_that_gives_back_other_weights_fails_the_work_and_names_the_worst() -> None:
    trained = {name: torch.zeros(2) for name in ("a", "b", PICTURE)}
    with pytest.raises(RuntimeError, match=r"the kohya file .*: b differs by 0.5"):
        _compared("kohya", trained, trained | {"b": torch.tensor([0.0, 0.5])})
    with pytest.raises(RuntimeError, match="b is missing"):
        _compared("kohya", trained, {k: v for k, v in trained.items() if k != "b"})
