"""Families that no list of ours names: what is asked of them is read off their calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from ddim_core.pipelines.arguments import Setting, call_arguments, plain_call
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.fitting import where_it_asks
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.parts import pipeline_class, pipeline_parts, understood_index
from ddim_core.pipelines.self_test import require_place_free
from ddim_core.pipelines.stage import own_copy
from ddim_core.pipelines.takes import require_images, what_it_takes
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.trial import require_steps
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


def krea_2() -> Any:
    """Has a list among its settings, and takes several layers of its encoder beside each other."""
    transformer = made(
        diffusers.Krea2Transformer2DModel, in_channels=16, num_layers=1, attention_head_dim=8,
        num_attention_heads=4, num_key_value_heads=2, intermediate_size=32, timestep_embed_dim=8,
        text_hidden_dim=16, num_text_layers=3, text_num_attention_heads=2,
        text_num_key_value_heads=1, text_intermediate_size=16, num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1, axes_dims_rope=(4, 2, 2), rope_theta=1000.0,
    )  # fmt: skip
    decoder = made(
        diffusers.AutoencoderKLQwenImage, base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1,
        temperal_downsample=[False], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip
    scheduler = FLOW(use_dynamic_shifting=True)
    return diffusers.Krea2Pipeline(
        scheduler, decoder, None, None, transformer, text_encoder_select_layers=(1, 2, 3)
    )


def krea_conditions(ks: Sequence[int]) -> Conditions:
    return {
        "prompt_embeds": rows(ks, 7, 3, 16),
        "negative_prompt_embeds": rows([0], 7, 3, 16, salt=5),
        "prompt_embeds_mask": torch.ones(len(ks), 7, dtype=torch.bool),
        "negative_prompt_embeds_mask": torch.ones(1, 7, dtype=torch.bool),
    }


def deep_floyd() -> Any:
    """Draws pixels, takes no latents, and its network predicts a variance too."""
    unet = tiny.text_unet(in_channels=3, out_channels=6, encoder_hid_dim=tiny.WIDTH)
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    return diffusers.IFPipeline(
        None, None, unet, scheduler, None, None, None, requires_safety_checker=False
    )


def kandinsky_5() -> Any:
    """Is told where each prompt begins, and draws sizes of a list alone."""
    transformer = made(
        diffusers.Kandinsky5Transformer3DModel, in_visual_dim=16, out_visual_dim=16, in_text_dim=16,
        in_text_dim2=16, model_dim=16, ff_dim=32, time_dim=16, num_text_blocks=1,
        num_visual_blocks=1, axes_dims=(1, 1, 2), patch_size=(1, 2, 2),
    )  # fmt: skip
    return diffusers.Kandinsky5T2IPipeline(
        transformer, tiny.flow_vae(), None, None, None, None, FLOW()
    )


def sana_sprint() -> Any:
    """Its scheduler lists where the last step lands, and two steps have a timestep between them."""
    whole = tiny.sana()
    transformer = made(
        diffusers.SanaTransformer2DModel, patch_size=1, in_channels=4, out_channels=4,
        num_layers=1, num_attention_heads=2, attention_head_dim=4, num_cross_attention_heads=2,
        cross_attention_head_dim=4, cross_attention_dim=8, caption_channels=8, sample_size=16,
        qk_norm="rms_norm_across_heads", guidance_embeds=True,
    )  # fmt: skip
    return diffusers.SanaSprintPipeline(
        None, None, whole.vae, transformer, diffusers.SCMScheduler()
    )


def sprint_conditions(ks: Sequence[int]) -> Conditions:
    told: Conditions = prompts(8, masked=True, negative=False)(ks)
    return {name: value for name, value in told.items() if not name.startswith("negative_")}


def perturbed() -> Any:
    """Asks its network a third time, with other layers of attention for that while."""
    whole = tiny.sd15()
    return diffusers.StableDiffusionPAGPipeline(
        whole.vae, None, None, whole.unet, whole.scheduler, None, None,
        requires_safety_checker=False, pag_applied_layers="mid",
    )  # fmt: skip


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


OTHERWISE_GUIDED = {
    flux_2: "tells its network", sana_sprint: "tells its network", consistency: "takes no guidance",
    perturbed: "asks its network of 3 rows an image, 2 for the prompt",
}  # fmt: skip
"""Families whose guidance cannot be left out at some steps."""


@pytest.mark.parametrize(
    ("make", "conditions", "guidance", "resolution", "sampler", "shape", "nfe"),
    [
        (hunyuan_dit, hunyuan_conditions, 5.0, 64, "dpmpp_2m_sde", (4, 8, 8), 4),
        (aura_flow, prompts(masked=True), 4.0, 16, "flow_heun", (4, 8, 8), 6),
        (flux_2, prompts(negative=False), 4.0, 16, "unipc", (16, 8, 8), 2),
        (qwen_image, qwen_conditions, 4.0, 16, "own", (16, 16), 4),
        (z_image, prompts(), 4.0, 16, "own", (4, 8, 8), 4),
        (krea_2, krea_conditions, 4.0, 16, "own", (16, 16), 4),
        (sana_sprint, sprint_conditions, 4.5, 32, "own", (4, 16, 16), 2),
        (perturbed, prompts(), 4.0, 0, "euler_a", (4, 8, 8), 6),
        (deep_floyd, prompts(), 4.0, 0, "own", (3, 8, 8), 4),
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
    asked, size = Setting(parse_sampler(sampler), 2, guidance), 2
    part = replace(asked, interval=(0.0, 0.5))
    refused = OTHERWISE_GUIDED.get(make)
    if refused:
        with pytest.raises(ValueError, match=f"interval is 0,0.5, and .* {opened.name} {refused}"):
            where_it_asks(opened, part)
    try:
        require_place_free(opened, asked if refused else part, conditions([0, 1]), size)
    except ValueError as error:  # SANA-Sprint on an AMD EPYC: its kernels sum by the place
        if make is not sana_sprint or not str(error).endswith("or batch_size 1"):
            raise
        size = 1
        require_place_free(opened, asked, conditions([0, 1]), size)
    drawn = draw(opened, asked, [0, 1], conditions([0, 1]), size)
    assert drawn.nfe == nfe
    assert drawn.images.shape == (2, opened.height, opened.width, opened.channels)
    assert not np.array_equal(*drawn.images)


@pytest.mark.parametrize(("make", "side"), [(flux_2, 128), (kandinsky_5, 1024)])
def test_the_size_of_images_is_that_of_a_call_that_is_told_none(
    make: Any, side: int, tmp_path: Path
) -> None:
    """Flux 2 checks no size when it is given none: its images were of 0 x 0 pixels."""
    make().save_pretrained(tmp_path / "it")
    opened = open_pipeline(tmp_path / "it")
    assert (opened.height, opened.width) == (side, side)


def test_prompts_of_a_batch_begin_one_length_after_another() -> None:
    takes = what_it_takes(kandinsky_5())
    told = {"prompt_embeds_qwen": rows([0, 1], 7, 16), "prompt_embeds_clip": rows([0, 1], 16)}
    told |= {"negative_prompt_embeds_qwen": rows([0, 0], 5, 16)}
    streams = [torch.Generator(), torch.Generator()]
    given = call_arguments(takes, told, streams, 2, 4.0, 0.0, (0, 0), None)
    assert given["prompt_cu_seqlens"].tolist() == [0, 7, 14]
    assert given["negative_prompt_cu_seqlens"].tolist() == [0, 5, 10]


@pytest.mark.parametrize(
    ("make", "conditions", "sampler", "words"),
    [
        (krea_2, {"prompt_embeds_mask": masks(1)}, "own", "are not of truth values.*as bool"),
        (z_image, {}, "unipc", "a plain list of sigmas, which this scheduler cannot shift"),
        (deep_floyd, {}, "euler_a", "asks its scheduler for variance_type, which this one has"),
        (z_image, {}, "dpmpp_2m", "hands it sigmas, and this scheduler takes none; take own"),
    ],
)
def test_what_a_family_does_not_take_is_refused_in_words(
    make: Any, conditions: Conditions, sampler: str, words: str, tmp_path: Path
) -> None:
    make().save_pretrained(tmp_path / "it")
    opened = open_pipeline(tmp_path / "it", resolution=0 if make is deep_floyd else 16)
    usual = krea_conditions([0]) if make is krea_2 else prompts()([0])
    asked = Setting(parse_sampler(sampler), 2, 4.0)

    def ask() -> None:
        where_it_asks(opened, asked)
        require_place_free(opened, asked, usual | conditions, 1)

    with pytest.raises(ValueError, match=words):
        ask()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_timestep_between_two_is_asked_for_with_two_steps_alone(
    steps: int, tmp_path: Path
) -> None:
    sana_sprint().save_pretrained(tmp_path / "it")
    opened = open_pipeline(tmp_path / "it", resolution=32)
    asked, conditions = Setting(parse_sampler("own"), steps, 4.5), sprint_conditions([0])
    require_steps(asked.sampler, opened.scheduler, steps)
    assert len(where_it_asks(opened, asked).timesteps) == steps
    assert draw(opened, asked, [0], conditions, 1).nfe == steps
    assert ("intermediate_timesteps" in plain_call(opened.takes, asked, (0, 0))) == (steps != 2)


def test_a_setting_that_is_a_list_is_kept(tmp_path: Path) -> None:
    krea_2().save_pretrained(tmp_path / "it")
    index = understood_index(pipeline_parts(tmp_path / "it"))
    assert index["text_encoder_select_layers"] == [1, 2, 3]


def test_layers_that_a_call_changes_for_a_while_are_its_own() -> None:
    """Two calls at once took each other's layers of attention away."""
    whole = perturbed()
    mine = own_copy(whole, None)
    assert mine.unet.mid_block.attentions[0] is not whole.unet.mid_block.attentions[0]
    pairs = zip(mine.unet.parameters(), whole.unet.parameters(), strict=True)
    assert all(one is other for one, other in pairs)
    plain = tiny.sd15()
    assert own_copy(plain, None).unet.mid_block is plain.unet.mid_block


@pytest.mark.parametrize(
    "kind", ["StableCascadePriorPipeline", "KandinskyV22PriorPipeline", "WuerstchenPriorPipeline"]
)
def test_what_makes_embeddings_makes_no_images(kind: str) -> None:
    with pytest.raises(ValueError, match=f"a {kind} makes embeddings that another pipeline"):
        require_images(getattr(diffusers, kind))


@pytest.mark.skipif(find_spec("onnx") is not None, reason="it is installed here")
def test_the_library_that_a_pipeline_needs_is_named() -> None:
    with pytest.raises(ValueError, match="OnnxStableDiffusionPipeline needs onnx, which is not in"):
        pipeline_class("OnnxStableDiffusionPipeline")
