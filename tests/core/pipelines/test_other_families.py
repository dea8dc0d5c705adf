"""Families that no list of ours names: what is asked of them is read off their calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.self_test import require_place_free
from ddim_core.samplers.name import parse_sampler
from tests.core.pipelines import tiny
from tests.core.pipelines.tiny import Conditions, made, masks, prompts, rows

FLOW = diffusers.FlowMatchEulerDiscreteScheduler
ATTENTION = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 16}


def hunyuan_dit() -> Any:
    decoder = made(
        diffusers.AutoencoderKL, block_out_channels=(8,) * 4, latent_channels=4, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    transformer = made(
        diffusers.HunyuanDiT2DModel, sample_size=8, num_layers=2, patch_size=2, in_channels=4,
        attention_head_dim=8, num_attention_heads=3, hidden_size=24, cross_attention_dim=16,
        cross_attention_dim_t5=16, pooled_projection_dim=16, text_len=7, text_len_t5=7,
        activation_fn="gelu-approximate",
    )  # fmt: skip
    return diffusers.HunyuanDiTPipeline(
        decoder, None, None, transformer, diffusers.DDPMScheduler(), None, None, False, None, None
    )


def aura_flow() -> Any:
    transformer = made(
        diffusers.AuraFlowTransformer2DModel, sample_size=8, patch_size=2, in_channels=4,
        num_mmdit_layers=1, num_single_dit_layers=1, attention_head_dim=8, num_attention_heads=4,
        caption_projection_dim=32, joint_attention_dim=16, out_channels=4, pos_embed_max_size=64,
    )  # fmt: skip
    return diffusers.AuraFlowPipeline(None, None, tiny.vae(), transformer, FLOW())


def flux_2() -> Any:
    """Takes its latents unpacked, as it draws them; its network is given packed ones."""
    transformer = made(
        diffusers.Flux2Transformer2DModel, patch_size=1, in_channels=16, num_layers=1,
        num_single_layers=1, timestep_guidance_channels=32, axes_dims_rope=[4] * 4, **ATTENTION,
    )  # fmt: skip
    decoder = made(
        diffusers.AutoencoderKLFlux2, block_out_channels=(4,), layers_per_block=1,
        latent_channels=4, norm_num_groups=1, down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",), use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    return diffusers.Flux2Pipeline(FLOW(), decoder, None, None, transformer)


def qwen_image() -> Any:
    """Its guidance is true_cfg_scale, and it asks its network twice a step; its decoder keeps what
    it has seen."""
    transformer = made(
        diffusers.QwenImageTransformer2DModel, patch_size=2, in_channels=16, out_channels=4,
        num_layers=1, guidance_embeds=False, axes_dims_rope=(8, 4, 4), **ATTENTION,
    )  # fmt: skip
    decoder = made(
        diffusers.AutoencoderKLQwenImage, base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1,
        temperal_downsample=[False], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    scheduler = FLOW(use_dynamic_shifting=True, shift_terminal=0.02)
    return diffusers.QwenImagePipeline(scheduler, decoder, None, None, transformer)


def z_image() -> Any:
    """Takes its embeddings as a list, one tensor a prompt."""
    transformer = made(
        diffusers.ZImageTransformer2DModel, all_patch_size=(2,), all_f_patch_size=(1,), n_layers=1,
        in_channels=4, dim=32, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[8, 4, 4], axes_lens=[64, 16, 16],
    )  # fmt: skip
    return diffusers.ZImagePipeline(FLOW(), tiny.flow_vae(), None, None, transformer)


def consistency() -> Any:
    unet = made(
        diffusers.UNet2DModel, sample_size=8, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2, num_class_embeds=10, **tiny.LEVELS,
    )  # fmt: skip
    scheduler = diffusers.CMStochasticIterativeScheduler()
    return diffusers.ConsistencyModelPipeline(unet, scheduler)


def hunyuan_conditions(ks: Sequence[int]) -> Conditions:
    told: Conditions = {}
    for suffix in ("", "_2"):
        told[f"prompt_embeds{suffix}"] = rows(ks, 7, 16, salt=len(suffix))
        told[f"negative_prompt_embeds{suffix}"] = rows([0], 7, 16, salt=5)
        told[f"prompt_attention_mask{suffix}"] = masks(len(ks))
        told[f"negative_prompt_attention_mask{suffix}"] = masks(1)
    return told


def qwen_conditions(ks: Sequence[int]) -> Conditions:
    masked = {"prompt_embeds_mask": masks(len(ks)), "negative_prompt_embeds_mask": masks(1)}
    return prompts()(ks) | masked


@pytest.mark.parametrize(
    ("make", "conditions", "guidance", "resolution", "sampler", "shape", "nfe"),
    [
        (hunyuan_dit, hunyuan_conditions, 5.0, 64, "dpmpp_2m_sde", (4, 8, 8), 4),
        (aura_flow, prompts(masked=True), 4.0, 16, "flow_heun", (4, 8, 8), 6),
        (flux_2, prompts(negative=False), 4.0, 16, "unipc", (16, 8, 8), 2),
        (qwen_image, qwen_conditions, 4.0, 16, "own", (16, 16), 4),
        (z_image, prompts(), 4.0, 16, "own", (4, 8, 8), 4),
        (consistency, tiny.classes, 1.0, 0, "own", (3, 8, 8), 2),
        (lambda: tiny.pixart(diffusers.PixArtAlphaPipeline), prompts(masked=True), 4.0, 0,
         "euler_a", (4, 8, 8), 4),
    ],
)  # fmt: skip
def test_other_families_are_drawn_too(
    make: Any,
    conditions: Any,
    guidance: float,
    resolution: int,
    sampler: str,
    shape: tuple[int, ...],
    nfe: int,
    tmp_path: Path,
) -> None:
    make().save_pretrained(tmp_path / "it")
    opened = open_pipeline(tmp_path / "it", resolution=resolution)
    assert opened.shape == shape
    asked = Setting(parse_sampler(sampler), 2, guidance)
    require_place_free(opened, asked, conditions([0, 1]), 2)
    drawn = draw(opened, asked, [0, 1], conditions([0, 1]), 2)
    assert drawn.nfe == nfe
    assert drawn.images.shape == (2, opened.height, opened.width, opened.channels)
    assert not np.array_equal(*drawn.images)
