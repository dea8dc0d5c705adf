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
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

WORDS = ("a", "photo", "of", "sks", "cat", "dog", "red", "blue", "drawing", "painting")
MAX_TOKENS = 8
WIDTH = 16
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


def tiny_vae() -> AutoencoderKL:
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


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
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
    return CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_TOKENS)


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
