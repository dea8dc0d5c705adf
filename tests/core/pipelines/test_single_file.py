"""A single file of Stable Diffusion 1.x, written by the names of the original code."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.prompts import encode_prompts
from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.small_base import new_pipeline, save_base
from ddim_core.text2image.specs import BaseSpec
from tests.core.pipelines import tiny

SMALL = BaseSpec(resolution=8, widths=(8, 16), text_width=16, text_layers=1, heads=2, max_tokens=7)
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {  # of two levels with one residual block each, attention in the lower
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0", "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
}  # fmt: skip


def unet_name(name: str) -> str:
    for ours, theirs in UNET.items():
        if name.startswith(f"{ours}."):
            rest = name.removeprefix(f"{ours}.")
            part, _, kind = rest.rpartition(".")
            return f"model.diffusion_model.{theirs}.{RESNET.get(part, part)}.{kind}".replace(
                "..", "."
            )
    raise AssertionError(name)


def vae_name(name: str) -> str:
    name = re.sub(r"(down|up)_blocks\.0\.resnets\.(\d)", r"\1.0.block.\2", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    return f"first_stage_model.{name}"


def original(folder: Path) -> dict[str, Tensor]:
    pipeline = open_pipeline(folder).pipeline
    named = {unet_name(n): w for n, w in pipeline.unet.state_dict().items()}
    named |= {vae_name(n): w for n, w in pipeline.vae.state_dict().items()}
    texts = {
        n.removeprefix("text_model."): w for n, w in pipeline.text_encoder.state_dict().items()
    }
    named |= {f"cond_stage_model.transformer.text_model.{n}": w for n, w in texts.items()}
    return {name: weight.contiguous() for name, weight in named.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "small"
    save_base(new_pipeline(SMALL, ["a red ball"]), folder)
    return folder


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    save_file(original(folder), folder.parent / "small.safetensors")
    return folder.parent / "small.safetensors"


def test_a_single_file_draws_what_its_folder_draws(
    file: Path, folder: Path, tmp_path: Path
) -> None:
    description = tmp_path / "description"
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            to = description / path.relative_to(folder)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())
    drawn = []
    for opened in (open_pipeline(folder), open_pipeline(file, configuration=description)):
        encoded = encode_prompts(opened, ["a red ball"])
        asked = Setting(parse_sampler("own"), 2, guidance=3.0)
        drawn.append(draw(opened, asked, [0, 1], encoded, 2).images)
    np.testing.assert_array_equal(*drawn)


def test_what_is_no_single_file_is_refused(file: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give beside it a pipeline's folder"):
        open_pipeline(file)
    with pytest.raises(ValueError, match=r"no \.safetensors file"):
        open_pipeline(folder / "model_index.json", configuration=folder)
    half = tmp_path / "half.safetensors"
    save_file({"model.diffusion_model.out.0.weight": torch.ones(1)}, half)
    with pytest.raises(ValueError, match="holds no vae"):
        open_pipeline(half, configuration=folder)
    tiny.dit().save_pretrained(tmp_path / "dit")
    with pytest.raises(ValueError, match="a single file is of"):
        open_pipeline(file, configuration=tmp_path / "dit")
    half.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="is no safetensors file"):
        open_pipeline(half, configuration=folder)
