"""Networks and pipelines of published shapes and random weights, built on the device itself."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)

CIFAR: dict[str, Any] = {
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "layers_per_block": 2,
    "block_out_channels": (128, 256, 256, 256), "dropout": 0.1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6,
}  # fmt: skip
SD15: dict[str, Any] = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}  # fmt: skip
SDXL: dict[str, Any] = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816, "use_linear_projection": True,
}  # fmt: skip
DIT: dict[str, Any] = {
    "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4, "out_channels": 8,
    "num_layers": 28, "sample_size": 32, "patch_size": 2, "num_embeds_ada_norm": 1000,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "cifar": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    "sd15": {"sample_size": 8, "block_out_channels": (32, 32, 32, 32), "cross_attention_dim": 32},
    "sdxl": {
        "sample_size": 8, "block_out_channels": (32, 32, 32), "cross_attention_dim": 32,
        "transformer_layers_per_block": 1, "attention_head_dim": 8,
        "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 32 + 6 * 8,
    },
    "dit": {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 8},
    "vae": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
}  # fmt: skip
LINEAR: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}


def cifar(tiny: bool) -> DDPMPipeline:
    """The U-Net of DDPM on CIFAR-10 (35.7 M weights), on the CPU in float32, as a checkpoint is."""
    torch.manual_seed(0)
    return DDPMPipeline(UNet2DModel(**CIFAR | (TINY["cifar"] if tiny else {})), DDPMScheduler())


def sd15(tiny: bool, device: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 without its text encoder (860 M)."""
    parts = _parts("sd15", UNet2DConditionModel, SD15, tiny, device, dtype, 512)
    return StableDiffusionPipeline(
        **parts, text_encoder=None, tokenizer=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
        scheduler=DDIMScheduler(
            clip_sample=False, set_alpha_to_one=False, steps_offset=1, **LINEAR
        ),
    )  # fmt: skip


def sdxl(tiny: bool, device: str, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    """SDXL without its text encoders (2.6 B)."""
    parts = _parts("sdxl", UNet2DConditionModel, SDXL, tiny, device, dtype, 1024)
    return StableDiffusionXLPipeline(
        **parts, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **LINEAR),
        force_zeros_for_empty_prompt=True, add_watermarker=False,
    )  # fmt: skip


def dit(tiny: bool, device: str, dtype: torch.dtype) -> DiTPipeline:
    """DiT-XL/2 at 256 pixels (675 M)."""
    parts = _parts("dit", DiTTransformer2DModel, DIT, tiny, device, dtype, 256)
    return DiTPipeline(parts["unet"], parts["vae"], DDIMScheduler())


def _parts(
    name: str, kind: Any, config: dict[str, Any], tiny: bool, device: str, dtype: torch.dtype,
    side: int,
) -> dict[str, Any]:  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        network = kind(**config | (TINY[name] if tiny else {}))
        vae = AutoencoderKL(**VAE | {"sample_size": side} | (TINY["vae"] if tiny else {}))
    if name == "dit":  # its last layer is zero at first, and an untrained one draws nothing
        torch.nn.init.normal_(network.proj_out_2.weight, std=0.02)
    ready = {"unet": network, "vae": vae}
    return {k: v.eval().requires_grad_(False).to(device, dtype) for k, v in ready.items()}


def conditions(name: str, tiny: bool, n: int) -> dict[str, torch.Tensor]:
    """What the prompts of n images are encoded to, at random."""
    stream = torch.Generator().manual_seed(1)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(n, *shape, generator=stream)

    if name == "dit":
        return {"class_labels": torch.arange(n) % 1000}
    width = 32 if tiny else {"sd15": 768, "sdxl": 2048}[name]
    told = {"prompt_embeds": some(77, width), "negative_prompt_embeds": some(77, width)}
    if name == "sdxl":
        pooled = 32 if tiny else 1280
        told["pooled_prompt_embeds"] = some(pooled)
        told["negative_pooled_prompt_embeds"] = some(pooled)
    return told
