"""Tiny Stable Diffusion folders with weights that are the same on every machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WORDS = ("a", "photo", "of", "sks", "cat", "dog", "red", "blue", "drawing", "painting")
MAX_TOKENS = 8
FLOW_TOKENS = 77  # diffusers' scripts of SD3 and Flux hard-code it for CLIP
WIDTH = 16
T5_WIDTH = 40  # wider than two CLIPs side by side, as the real one
Network = TypeVar("Network", bound=nn.Module)


def write_tiny_base(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Writes a StableDiffusionPipeline of some 60,000 weights; 4 pixels a latent side-pair, as
    small as attention, residual blocks and one halving allow."""
    tokenizer = tiny_tokenizer(folder.parent / f"{folder.name}-vocabulary")
    pipeline = StableDiffusionPipeline(
        vae=filled(tiny_vae(), seed + 1),
        text_encoder=filled(CLIPTextModel(text_config(len(tokenizer))), seed + 2),
        tokenizer=tokenizer,
        unet=filled(tiny_unet(), seed + 3),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_xl_base(folder: Path) -> Path:
    """Writes a StableDiffusionXLPipeline as small."""
    tokenizer = tiny_tokenizer(folder.parent / f"{folder.name}-vocabulary")
    second = text_config(len(tokenizer))
    second.projection_dim = WIDTH
    pipeline = StableDiffusionXLPipeline(
        vae=filled(tiny_vae(), 1),
        text_encoder=filled(CLIPTextModel(text_config(len(tokenizer))), 2),
        text_encoder_2=filled(CLIPTextModelWithProjection(second), 3),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=filled(
            tiny_unet(
                cross_attention_dim=2 * WIDTH,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            ),
            4,
        ),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_sd3_base(folder: Path) -> Path:
    """Writes a StableDiffusion3Pipeline with all three text encoders, as small; timesteps are
    shifted, as the real one's."""
    tokenizer = tiny_tokenizer(folder.parent / f"{folder.name}-vocabulary", FLOW_TOKENS)
    pipeline = StableDiffusion3Pipeline(
        transformer=filled(
            SD3Transformer2DModel(
                sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
                attention_head_dim=8, num_attention_heads=2, caption_projection_dim=WIDTH,
                joint_attention_dim=T5_WIDTH, pooled_projection_dim=2 * WIDTH,
                pos_embed_max_size=16,
            ),
            1,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=filled(tiny_vae(**FLOW_VAE), 2),
        text_encoder=filled(CLIPTextModelWithProjection(flow_clip(len(tokenizer))), 3),
        text_encoder_2=filled(CLIPTextModelWithProjection(flow_clip(len(tokenizer))), 4),
        text_encoder_3=filled(tiny_t5(), 5),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=t5_tokenizer(),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def write_tiny_flux_base(folder: Path, guidance_embeds: bool = True) -> Path:
    """Writes a FluxPipeline as small, as FLUX.1 dev, or without its embedding of the guidance as
    FLUX.1 schnell."""
    tokenizer = tiny_tokenizer(folder.parent / f"{folder.name}-vocabulary", FLOW_TOKENS)
    pipeline = FluxPipeline(
        transformer=filled(
            FluxTransformer2DModel(
                patch_size=1, in_channels=16, num_layers=1, num_single_layers=1,
                attention_head_dim=16, num_attention_heads=2, joint_attention_dim=T5_WIDTH,
                pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
                guidance_embeds=guidance_embeds,
            ),
            1,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=filled(tiny_vae(**FLOW_VAE), 2),
        text_encoder=filled(CLIPTextModel(flow_clip(len(tokenizer))), 3),
        text_encoder_2=filled(tiny_t5(), 4),
        tokenizer=tokenizer,
        tokenizer_2=t5_tokenizer(),
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


FLOW_VAE = {"shift_factor": 0.06, "use_quant_conv": False, "use_post_quant_conv": False}


def flow_clip(vocab_size: int) -> CLIPTextConfig:
    config = text_config(vocab_size)
    config.projection_dim, config.max_position_embeddings = WIDTH, FLOW_TOKENS
    return config


def tiny_t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()), d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1,
            num_heads=2,
        )
    )  # fmt: skip


def t5_tokenizer() -> T5TokenizerFast:
    """Pieces are the words above, and letters."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -5.0)]
    pieces += [(f"\u2581{word}", -2.0) for word in WORDS] + [(letter, -9.0) for letter in letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=FLOW_TOKENS)


def tiny_unet(cross_attention_dim: int = WIDTH, **of_xl: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(WIDTH, WIDTH),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=cross_attention_dim,
        attention_head_dim=2,
        norm_num_groups=4,
        **of_xl,
    )


def tiny_vae(**of_flows: Any) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.9,
        **of_flows,
    )


def text_config(vocab_size: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )


def tiny_tokenizer(folder: Path, max_tokens: int = MAX_TOKENS) -> CLIPTokenizer:
    """Letters, and the words above in one token each."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens, merges = [*letters, *(letter + "</w>" for letter in letters)], []
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            merge = (parts[0], parts[1])
            parts[:2] = ["".join(merge)]
            if merge not in merges:
                merges.append(merge)
                if parts[0] not in tokens:
                    tokens.append(parts[0])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=max_tokens)


def filled(network: Network, seed: int) -> Network:
    """Sets every weight from a stream that NumPy promises never to change."""
    stream = np.random.RandomState(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            values = stream.standard_normal(parameter.shape).astype(np.float32)
            if parameter.ndim > 1:
                parameter.copy_(torch.from_numpy(values / np.sqrt(np.float32(fan_in))))
            else:
                centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
                parameter.copy_(torch.from_numpy(np.float32(0.02) * values + np.float32(centre)))
    return network
