"""A UNet2DModel that is told the time by a sinusoid wider than its first convolution.

Diffusers ties that width to `block_out_channels[0]`. The small U-Net of KAIST's diffusion course
takes guided-diffusion's embedding of 256 whatever its width is, and is a UNet2DModel in all else,
so that these networks have a class name of their own in their config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch

from ddim_core.common.late import late

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

CLASS_NAME = "WideTimeUNet2DModel"


def wide_time_unet(config: Mapping[str, Any]) -> diffusers.UNet2DModel:
    """Lays out the network of a config, without memory for its weights yet.

        emb(t) = MLP([cos(t f_i), sin(t f_i)]),  f_i = 10000^(-2 i / n),  i = 0..n/2 - 1

    Source: `timestep_embedding` of OpenAI's guided-diffusion and of the course; n = time_features.

    Args:
        config: Of a UNet2DModel, and `time_features`, an even number.
    """
    from diffusers.models import embeddings

    plain = {k: v for k, v in config.items() if k not in ("time_features", "_class_name")}
    n_features = int(config["time_features"])
    with torch.device("meta"):
        unet = diffusers.UNet2DModel.from_config(plain)
        width = unet.time_embedding.linear_2.out_features
        unet.time_proj = embeddings.Timesteps(
            n_features, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        unet.time_embedding = embeddings.TimestepEmbedding(n_features, width)
    return unet


def load_wide_time_unet(config: Mapping[str, Any], weights: Path) -> diffusers.UNet2DModel:
    """Opens a stored one.

    Args:
        config: As of `wide_time_unet`.
        weights: A safetensors file with diffusers' names.

    Raises:
        RuntimeError: If the weights are not the network's.
    """
    unet = wide_time_unet(config)
    unet.load_state_dict(safetensors.torch.load_file(weights), strict=True, assign=True)
    return unet
