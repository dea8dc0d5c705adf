"""Tiny pipelines of random weights, one of each family, with embeddings that belong to an image."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ddim_core.networks.building import seeded_weights
from ddim_core.pipelines.opening import OpenedPipeline, open_pipeline
from ddim_core.text2image.small_base import caption_tokenizer

Conditions = dict[str, Tensor]
TOKENS, WIDTH, SIDE = 7, 16, 8
LEVELS = {"layers_per_block": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
TRANSFORMER = {"attention_head_dim": 8, "num_attention_heads": 2, "sample_size": SIDE}
DIT = {
    **TRANSFORMER, "num_layers": 2, "in_channels": 4, "out_channels": 8, "attention_bias": True,
    "activation_fn": "gelu-approximate", "num_embeds_ada_norm": 1000,
    "norm_elementwise_affine": False,
}  # fmt: skip
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
STEPS = {**SCALED, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


@dataclass(frozen=True)
class Tiny:
    """A tiny pipeline.

    Attributes:
        make: Returns it.
        conditions: Maps images k to what they are drawn for.
        guidance: Of its usual setting.
        resolution: What is asked of it; 0 is its own.
        samplers: Some that fit it, besides `own`.
    """

    make: Callable[[], Any]
    conditions: Callable[[Sequence[int]], Conditions]
    guidance: float
    resolution: int
    samplers: tuple[str, ...]


def made(kind: Any, **config: Any) -> Any:
    with seeded_weights(0):
        return kind(**config)


def rows(ks: Sequence[int], *shape: int, salt: int = 0) -> Tensor:
    """One draw per image."""
    seeds = [torch.Generator().manual_seed(1000 + k + 77 * salt) for k in ks]
    return torch.stack([torch.randn(*shape, generator=seed) for seed in seeds])


def masks(n: int) -> Tensor:
    return torch.ones(n, TOKENS, dtype=torch.int64)


def nothing(ks: Sequence[int]) -> Conditions:
    return {}


def classes(ks: Sequence[int]) -> Conditions:
    return {"class_labels": torch.tensor([k % 10 for k in ks])}


def prompts(
    width: int = WIDTH, pooled: int = 0, masked: bool = False, negative: bool = True
) -> Any:
    """Embeddings as most families take them."""

    def conditions(ks: Sequence[int]) -> Conditions:
        told = {"prompt_embeds": rows(ks, TOKENS, width)}
        if negative:
            told["negative_prompt_embeds"] = rows([0], TOKENS, width, salt=5)
        if masked:
            told["prompt_attention_mask"] = masks(len(ks))
            told["negative_prompt_attention_mask"] = masks(1)
        if pooled:
            told["pooled_prompt_embeds"] = rows(ks, pooled, salt=2)
            if negative:
                told["negative_pooled_prompt_embeds"] = rows([0], pooled, salt=3)
        return told

    return conditions


def vae(**more: Any) -> Any:
    return made(
        diffusers.AutoencoderKL,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * SIDE,
        **more,
    )


def flow_vae() -> Any:
    return vae(shift_factor=0.06, use_quant_conv=False, use_post_quant_conv=False)


def pixel_unet(channels: int = 3) -> Any:
    return made(
        diffusers.UNet2DModel,
        sample_size=SIDE,
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        **LEVELS,
    )


def text_unet(**more: Any) -> Any:
    return made(
        diffusers.UNet2DConditionModel,
        sample_size=SIDE,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        **{"attention_head_dim": 4, "cross_attention_dim": WIDTH, **LEVELS, **more},
    )


def ddpm() -> Any:
    return diffusers.DDPMPipeline(pixel_unet(), diffusers.DDPMScheduler())


def ddim() -> Any:
    return diffusers.DDIMPipeline(pixel_unet(), diffusers.DDIMScheduler())


def ldm() -> Any:
    decoder = made(
        diffusers.VQModel,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    return diffusers.LDMPipeline(decoder, pixel_unet(4), diffusers.DDIMScheduler())


def dit() -> Any:
    config = {**DIT, "patch_size": 4, "norm_type": "ada_norm_zero"}
    return diffusers.DiTPipeline(
        made(diffusers.DiTTransformer2DModel, **config), vae(), diffusers.DDIMScheduler()
    )


def sd15(scheduler: Any = None) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae(), None, None, text_unet(), scheduler or diffusers.DDIMScheduler(**STEPS), None, None,
        requires_safety_checker=False,
    )  # fmt: skip


def lcm() -> Any:
    return diffusers.LatentConsistencyModelPipeline(
        vae(), None, None, text_unet(time_cond_proj_dim=8), diffusers.LCMScheduler(**SCALED), None,
        None, requires_safety_checker=False,
    )  # fmt: skip


def clip(kind: Any, width: int = WIDTH, tokens: int = 50, **more: Any) -> Any:
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=width, num_attention_heads=2, num_hidden_layers=1,
        vocab_size=tokens, projection_dim=width, max_position_embeddings=TOKENS, **more,
    )  # fmt: skip
    return made(kind, config=config)


def sdxl() -> Any:
    texts = (clip(CLIPTextModel), clip(CLIPTextModelWithProjection))
    return _sdxl(texts, (None, None), WIDTH, WIDTH)


def sdxl_with_texts() -> Any:
    """An SDXL with tokenizers, whose second encoder is wider than the first, as the real one's."""
    tokenizer = caption_tokenizer(["a red ball"], 600, TOKENS)
    more = {"tokens": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    texts = (
        clip(CLIPTextModel, **more),
        clip(CLIPTextModelWithProjection, 2 * WIDTH, **more, hidden_act="gelu"),
    )
    return _sdxl(texts, (tokenizer, tokenizer), 3 * WIDTH, 2 * WIDTH)


def _sdxl(texts: tuple[Any, Any], tokenizers: tuple[Any, Any], cross: int, pooled: int) -> Any:
    unet = text_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + pooled,
        use_linear_projection=True,
        attention_head_dim=(2, 4),
        cross_attention_dim=cross,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae(), *texts, *tokenizers, unet, diffusers.EulerDiscreteScheduler(**SCALED)
    )


def sd3() -> Any:
    transformer = made(
        diffusers.SD3Transformer2DModel,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        caption_projection_dim=WIDTH,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=32,
        **TRANSFORMER,
    )
    return diffusers.StableDiffusion3Pipeline(
        transformer, diffusers.FlowMatchEulerDiscreteScheduler(), flow_vae(), *[None] * 6
    )


def flux(told_guidance: bool = True) -> Any:
    transformer = made(
        diffusers.FluxTransformer2DModel,
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=told_guidance,
    )
    return diffusers.FluxPipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(), flow_vae(), *[None] * 4, transformer
    )


def pixart(kind: Any = diffusers.PixArtSigmaPipeline) -> Any:
    transformer = made(
        diffusers.PixArtTransformer2DModel,
        patch_size=2,
        cross_attention_dim=WIDTH,
        caption_channels=WIDTH,
        norm_type="ada_norm_single",
        norm_eps=1e-6,
        use_additional_conditions=False,
        **DIT,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler()
    return kind(None, None, vae(), transformer, scheduler)


def sana() -> Any:
    decoder = made(
        diffusers.AutoencoderDC,
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    transformer = made(
        diffusers.SanaTransformer2DModel,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=4,
        cross_attention_dim=8,
        caption_channels=8,
        sample_size=2 * SIDE,
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return diffusers.SanaPipeline(None, None, decoder, transformer, scheduler)


BETAS = ("dpmpp_2m/karras", "euler_a", "dpmpp_2m_sde")
UNSCALED = ("ddim", "unipc", "dpmpp_2m_sde")
FLOWS = ("dpmpp_2m", "unipc", "flow_euler/karras")
SHAPED = ("ddim?timestep_spacing=trailing", "ddim?clip_sample=false", "ddim?thresholding=true")
LISTED = ("lcm", "lcm?original_inference_steps=20", "lcm?timesteps=[999,499]")
PIPELINES = {
    "ddpm": Tiny(ddpm, nothing, 1.0, 0, ("ddim", "dpmpp_2m", "dpmpp_2m_sde")),
    "ddim": Tiny(ddim, nothing, 1.0, 0, SHAPED),
    "ldm": Tiny(ldm, nothing, 1.0, 0, ("ddim", "dpmpp_2m/karras", "dpmpp_2m_sde")),
    "dit": Tiny(dit, classes, 4.0, 0, UNSCALED),
    "sd15": Tiny(sd15, prompts(), 5.0, 0, BETAS),
    "lcm": Tiny(lcm, prompts(negative=False), 5.0, 0, LISTED),
    "sdxl": Tiny(sdxl, prompts(pooled=WIDTH), 5.0, 0, BETAS),
    "sd3": Tiny(sd3, prompts(pooled=32), 5.0, 0, ("unipc", "flow_euler/karras", "flow_heun")),
    "flux": Tiny(
        flux, prompts(pooled=WIDTH, negative=False), 3.5, 2 * SIDE,
        ("unipc", "flow_euler/karras", "flow_euler?sigmas=[1.0,0.7]"),
    ),
    "pixart_sigma": Tiny(pixart, prompts(masked=True), 5.0, 0, BETAS),
    "sana": Tiny(sana, prompts(8, masked=True), 4.5, 0, FLOWS),
}  # fmt: skip


@functools.cache
def opened_of(name: str, folder: Path) -> OpenedPipeline:
    """A pipeline of `PIPELINES` saved to a folder and opened again."""
    PIPELINES[name].make().save_pretrained(folder / name)
    return open_pipeline(folder / name, resolution=PIPELINES[name].resolution)
