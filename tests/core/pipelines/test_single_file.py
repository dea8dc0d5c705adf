"""Single files of Stable Diffusion 1.x and SDXL, written by the names of the original code."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.prompts import encode_prompts
from ddim_core.pipelines.single_file import UNET, holds_average, write_average
from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.small_base import new_pipeline, save_base
from ddim_core.text2image.specs import BaseSpec
from tests.core.pipelines import tiny
from tests.core.pipelines.original import original

SMALL = BaseSpec(resolution=8, widths=(8, 16), text_width=16, text_layers=1, heads=2, max_tokens=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "small"
    save_base(new_pipeline(SMALL, ["a red ball"]), folder)
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    save_file(original(open_pipeline(folder).pipeline), folder.parent / "small.safetensors")
    return folder.parent / "small.safetensors"


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An SDXL as a folder, and as a file."""
    place = tmp_path_factory.mktemp("xl")
    pipeline = tiny.sdxl_with_texts()
    pipeline.save_pretrained(place / "folder")
    save_file(original(pipeline), place / "file.safetensors")
    return place / "folder", place / "file.safetensors"


def described(folder: Path, description: Path) -> Path:
    """A copy of a pipeline without its weights."""
    shutil.copytree(folder, description, ignore=shutil.ignore_patterns("*.safetensors"))
    return description


def require_same_pictures(folder: Path, file: Path, description: Path) -> None:
    drawn = []
    for opened in (open_pipeline(folder), open_pipeline(file, configuration=description)):
        encoded = encode_prompts(opened, ["a red ball"])
        asked = Setting(parse_sampler("own"), 2, guidance=3.0)
        drawn.append(draw(opened, asked, [0, 1], encoded, 2).images)
    np.testing.assert_array_equal(*drawn)


def test_a_single_file_draws_what_its_folder_draws(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    require_same_pictures(folder, file, described(folder, tmp_path / "description"))


def test_a_single_file_of_sdxl_draws_what_its_folder_draws(
    xl: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, file = xl
    require_same_pictures(folder, file, described(folder, tmp_path / "description"))


def test_the_moving_average_stands_in_the_unets_place(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    weights = load_file(file)
    average = {n: w * 0.9 for n, w in weights.items() if n.startswith(UNET)}
    flat = {f"model_ema.{n.removeprefix('model.').replace('.', '')}": w for n, w in average.items()}
    save_file(weights | flat | {"model_ema.decay": torch.ones(())}, tmp_path / "both.safetensors")
    assert holds_average(tmp_path / "both.safetensors")
    assert not holds_average(file)
    write_average(tmp_path / "both.safetensors", tmp_path / "one.safetensors")
    save_file(weights | average, tmp_path / "as_meant.safetensors")
    drawn = [load_file(tmp_path / name) for name in ("one.safetensors", "as_meant.safetensors")]
    assert drawn[0].keys() == drawn[1].keys()
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[1])


def test_an_average_of_another_unet_is_refused(file: Path, tmp_path: Path) -> None:
    save_file(load_file(file) | {"model_ema.decay": torch.ones(())}, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=r"without \d+ of its U-Net's weights.* --weights raw"):
        write_average(tmp_path / "b.safetensors", tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["model.diffusion_model.joint_blocks.0.x"], "Stable Diffusion 3: model.diffusion_model"),
        (["double_blocks.0.img_attn.qkv.weight"], "Flux .* no unet"),
        (["lora_unet_down_blocks_0.lora_down.weight"], "a LoRA"),
        (
            ["model.diffusion_model.out.0.weight"],
            "a U-Net .* all of its encoders.* no vae",
        ),
        (["weight"], "weight, and no unet"),
        (
            ["model.diffusion_model.out", "vae.x", "conditioner.embedders.0.model.ln_final.bias"],
            "the refiner of SDXL",
        ),
    ],
)
def test_what_else_lies_in_a_file_is_said(
    folder: Path, tmp_path: Path, names: list[str], told: str
) -> None:
    file = tmp_path / "file.safetensors"
    save_file({name: torch.ones(1) for name in names}, file)
    with pytest.raises(ValueError, match=f"is no single file of .* it holds {told}"):
        open_pipeline(file, configuration=folder)


def test_a_configuration_of_another_kind_is_refused(
    xl: tuple[Path, Path], folder: Path, file: Path
) -> None:
    with pytest.raises(ValueError, match="is of a StableDiffusionXLPipeline, and its configur"):
        open_pipeline(xl[1], configuration=folder)
    with pytest.raises(ValueError, match="of a StableDiffusionXLPipeline; give one of the same"):
        open_pipeline(file, configuration=xl[0])


def test_what_is_no_single_file_is_refused(file: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give beside it, as its configuration"):
        open_pipeline(file)
    with pytest.raises(ValueError, match=r"no \.safetensors file"):
        open_pipeline(folder / "model_index.json", configuration=folder)
    half = tmp_path / "half.safetensors"
    half.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="is no safetensors file"):
        open_pipeline(half, configuration=folder)
