"""A UNet2DModel with what diffusers' configuration cannot say: another time, a number of heads.

Diffusers ties the width of the time's sinusoid to `block_out_channels[0]`, and gives all levels'
attention one width a head. The small U-Net of KAIST's diffusion course takes guided-diffusion's
sinusoid of 256 whatever its width is; guided-diffusion's own may have one number of heads for all
levels, and times stretched to 0..1000. These are UNet2DModels in all else, so that they have a
class name of their own in their config.json.
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
OWN = ("time_features", "time_scale", "num_heads", "_class_name")


def wide_time_unet(config: Config) -> diffusers.UNet2DModel:
    """Lays out the network of a config.

        emb(t) = MLP([cos(t c f_i), sin(t c f_i)]),  f_i = 10000^(-2 i / n),  i = 0..n/2 - 1

    Source: `timestep_embedding` of OpenAI's guided-diffusion and of the course; n = time_features,
    c = time_scale, which its `rescale_timesteps` sets to 1000 / T.

    Args:
        config: Of a UNet2DModel, and `time_features`, an even number; if they are there,
            `time_scale` (else 1) and `num_heads`, of every attention.
    """
    from diffusers.models import attention_processor, embeddings

    unet = diffusers.UNet2DModel.from_config({k: v for k, v in config.items() if k not in OWN})
    n_features, width = int(config["time_features"]), unet.time_embedding.linear_2.out_features
    scale = float(config.get("time_scale", 1.0))
    unet.time_proj = embeddings.Timesteps(
        n_features, flip_sin_to_cos=True, downscale_freq_shift=0, scale=scale
    )
    unet.time_embedding = embeddings.TimestepEmbedding(n_features, width)
    for module in unet.modules():
        if isinstance(module, attention_processor.Attention) and "num_heads" in config:
            module.heads = int(config["num_heads"])
            module.scale = (module.inner_dim / module.heads) ** -0.5
    return unet
