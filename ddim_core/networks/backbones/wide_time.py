"""A UNet2DModel that is told the time by a sinusoid wider than its first convolution.

Diffusers ties that width to `block_out_channels[0]`. The small U-Net of KAIST's diffusion course
takes guided-diffusion's embedding of 256 whatever its width is, and is a UNet2DModel in all else,
so that these networks have a class name of their own in their config.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddim_core.common.foreign import Config
from ddim_core.common.late import late

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

CLASS_NAME = "WideTimeUNet2DModel"


def wide_time_unet(config: Config) -> diffusers.UNet2DModel:
    """Lays out the network of a config.

        emb(t) = MLP([cos(t f_i), sin(t f_i)]),  f_i = 10000^(-2 i / n),  i = 0..n/2 - 1

    Source: `timestep_embedding` of OpenAI's guided-diffusion and of the course; n = time_features.

    Args:
        config: Of a UNet2DModel, and `time_features`, an even number.
    """
    from diffusers.models import embeddings

    plain = {k: v for k, v in config.items() if k not in ("time_features", "_class_name")}
    n_features = int(config["time_features"])
    unet = diffusers.UNet2DModel.from_config(plain)
    width = unet.time_embedding.linear_2.out_features
    unet.time_proj = embeddings.Timesteps(n_features, flip_sin_to_cos=True, downscale_freq_shift=0)
    unet.time_embedding = embeddings.TimestepEmbedding(n_features, width)
    return unet
