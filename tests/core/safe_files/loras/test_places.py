"""Names of layers as trainers spell them, and LoRAs held against a base by headers alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers.loaders.lora_conversion_utils import (
    _convert_unet_lora_key,
    _maybe_map_sgm_blocks_to_diffusers,
)
from safetensors.numpy import save_file

from ddim_core.safe_files.loras.places import Directory, base_layers, require_base, require_fit

# The layers of an SDXL's U-Net, two resnets a block, as far as they are named here.
Q = "transformer_blocks.0.attn1.to_q"
UNET = {
    "conv_in": (8, 4, 3, 3), "conv_out": (4, 8, 3, 3), "time_embedding.linear_1": (32, 8),
    "add_embedding.linear_2": (32, 32), "down_blocks.0.resnets.0.conv1": (8, 8, 3, 3),
    "down_blocks.0.resnets.1.conv1": (8, 8, 3, 3),
    "down_blocks.0.downsamplers.0.conv": (8, 8, 3, 3),
    f"down_blocks.1.attentions.1.{Q}": (16, 16), "down_blocks.2.resnets.0.time_emb_proj": (16, 32),
    f"mid_block.attentions.0.{Q}": (16, 16), "mid_block.resnets.1.conv2": (16, 16, 3, 3),
    f"up_blocks.0.attentions.2.{Q}": (16, 16), "up_blocks.0.upsamplers.0.conv": (16, 16, 3, 3),
    "up_blocks.1.resnets.0.conv_shortcut": (8, 24, 1, 1),
    "up_blocks.1.attentions.0.proj_in": (8, 8),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0": (16, 16),
}  # fmt: skip
TEXT = {"text_model.encoder.layers.0.self_attn.q_proj": (8, 8)}
DIRECTORY = Directory({"unet": UNET, "text_encoder": TEXT})
WORD = Q.replace(".", "_")
ORIGINAL = {
    f"input_blocks_5_1_{WORD}": f"down_blocks.1.attentions.1.{Q}",
    "input_blocks_7_0_emb_layers_1": "down_blocks.2.resnets.0.time_emb_proj",
    "input_blocks_3_0_op": "down_blocks.0.downsamplers.0.conv",
    f"middle_block_1_{WORD}": f"mid_block.attentions.0.{Q}",
    "middle_block_2_out_layers_3": "mid_block.resnets.1.conv2",
    f"output_blocks_2_1_{WORD}": f"up_blocks.0.attentions.2.{Q}",
    "output_blocks_2_2_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_3_0_skip_connection": "up_blocks.1.resnets.0.conv_shortcut",
    "output_blocks_3_1_proj_in": "up_blocks.1.attentions.0.proj_in",
    "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding.linear_1",
    "label_emb_0_2": "add_embedding.linear_2",
}  # fmt: skip


class Config:
    layers_per_block = 2


@pytest.mark.parametrize("name", ORIGINAL)
def test_names_of_the_original_unet_are_understood_as_by_diffusers(name: str) -> None:
    (place,) = DIRECTORY.places(f"lora_unet_{name}")
    assert (place.part, place.path) == ("unet", ORIGINAL[name])
    (mapped,) = _maybe_map_sgm_blocks_to_diffusers(
        {f"lora_unet_{name}.lora_down.weight": 0}, Config
    )
    theirs = _convert_unet_lora_key(mapped).replace(".processor", "")
    theirs = theirs.replace("to_q_lora", "to_q.lora")
    assert theirs.partition(".lora")[0] == place.path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lora_unet_down_blocks_0_resnets_1_conv1", "down_blocks.0.resnets.1.conv1"),
        (f"unet.mid_block.attentions.0.{Q}", f"mid_block.attentions.0.{Q}"),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_q",
            f"mid_block.attentions.0.{Q}",
        ),
        (
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_out",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
        ),
        (f"base_model.model.mid_block.attentions.0.{Q}", f"mid_block.attentions.0.{Q}"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", next(iter(TEXT))),
        ("text_encoder.encoder.layers.0.self_attn.q_proj", next(iter(TEXT))),
        ("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", None),
        ("lora_unet_double_blocks_0_img_attn_qkv", None),
    ],
)
def test_every_spelling_of_a_layer_finds_it(name: str, path: str | None) -> None:
    assert [place.path for place in DIRECTORY.places(name)] == ([path] if path else [])


def base_of(folder: Path, kind: str = "UNet2DConditionModel", part: str = "unet") -> Path:
    (folder / part).mkdir(parents=True)
    index = {"_class_name": "SomePipeline", part: ["diffusers", kind]}
    (folder / "model_index.json").write_text(json.dumps(index))
    weights = {f"{path}.weight": np.zeros(shape, np.float16) for path, shape in UNET.items()}
    save_file(weights, folder / part / "diffusion_pytorch_model.safetensors")
    return folder


def fits(folder: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    require_base(folder)
    require_fit("cat", shapes, folder, Directory(base_layers(folder)), folder.name)


LAYER = f"lora_unet_mid_block_attentions_0_{WORD}"
CONV = "lora_unet_mid_block_resnets_1_conv2"


@pytest.mark.parametrize(
    "shapes",
    [
        {f"{LAYER}.lora_down.weight": (4, 16), f"{LAYER}.lora_up.weight": (16, 4)},
        {f"{LAYER}.lora_down.weight": (4, 16, 1, 1), f"{LAYER}.lora_up.weight": (16, 4, 1, 1)},
        {f"{CONV}.lora_down.weight": (4, 16, 3, 3), f"{CONV}.lora_up.weight": (16, 4, 1, 1)},
        {f"{CONV}.hada_w1_a": (16, 4), f"{CONV}.hada_w1_b": (4, 144)},
        {
            f"{CONV}.hada_w1_a": (4, 16),
            f"{CONV}.hada_w1_b": (4, 16),
            f"{CONV}.hada_t1": (4, 4, 3, 3),
        },
        {f"{LAYER}.lokr_w1": (4, 2), f"{LAYER}.lokr_w2_a": (4, 1), f"{LAYER}.lokr_w2_b": (1, 8)},
        {
            f"{CONV}.lokr_w1": (4, 2),
            f"{CONV}.lokr_t2": (1, 1, 3, 3),
            f"{CONV}.lokr_w2_a": (1, 4),
            f"{CONV}.lokr_w2_b": (1, 8),
        },
        {"lora_unet_spelt_otherwise.lora_down.weight": (4, 77)},  # left to diffusers
    ],
)
def test_what_fits_and_what_is_spelt_otherwise_passes(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    fits(base_of(tmp_path / "base"), shapes)


@pytest.mark.parametrize(
    ("shapes", "kind", "message"),
    [
        ({f"{LAYER}.lora_down.weight": (4, 20)}, "", "cat does not fit base: .* 20 inputs, .* 16"),
        ({f"{LAYER}.lora_up.weight": (32, 4)}, "", "has 32 outputs, and there that layer has 16"),
        ({f"{CONV}.hada_w1_a": (16, 4), f"{CONV}.hada_w1_b": (4, 16)}, "", "has 16 inputs, .* 144"),
        ({f"{LAYER}.lokr_w1": (4, 2), f"{LAYER}.lokr_w2": (8, 8)}, "", "has 32 outputs, .* 16"),
        # Of small factors a product that no memory holds.
        ({f"{LAYER}.lokr_w1": (4, 10**6), f"{LAYER}.lokr_w2": (4, 10**6)}, "", "has 10{12} inputs"),
        ({f"{LAYER}.hada_w1_a": (16, 1), f"{LAYER}.hada_w1_b": (1, 16),
          f"{LAYER}.hada_w2_a": (10**6, 1), f"{LAYER}.hada_w2_b": (1, 10**6)}, "",
         "has 1000000 outputs, .* 16"),
        ({f"{CONV}.lokr_w1": (4, 2), f"{CONV}.lokr_t2": (1, 1, 3, 3), f"{CONV}.lokr_w2_a": (1, 4),
          f"{CONV}.lokr_w2_b": (1, 9)}, "", "has 162 inputs, .* 144"),
        ({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": (4, 8)}, "",
         "is a layer of a FluxTransformer2DModel, and base has a UNet2DConditionModel"),
        ({"lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight": (4, 8)}, "",
         "is a layer of a SD3Transformer2DModel"),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (4, 8)}, "",
         "is a layer of a transformer"),
        ({"unet.up_blocks.3.conv.lora_A.weight": (4, 8)}, "FluxTransformer2DModel",
         "is a layer of a UNet2DConditionModel, and base has a FluxTransformer2DModel"),
        ({}, "UNet2DModel", "base is a SomePipeline, which takes no LoRAs"),
    ],
)  # fmt: skip
def test_what_belongs_to_another_base_is_refused_by_layer_and_size(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], kind: str, message: str
) -> None:
    part = "transformer" if "Flux" in kind else "unet"
    with pytest.raises(ValueError, match=message):
        fits(base_of(tmp_path / "base", kind or "UNet2DConditionModel", part), shapes)


def test_a_folder_without_an_index_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no model_index\.json; a base is a diffusers"):
        require_base(tmp_path)
    folder = base_of(tmp_path / "base")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"unet/diffusion_pytorch_model\.safetensors is no whole"):
        fits(folder, {})
