"""Noise models: what the sampler calls, and the small U-Nets that this project trains."""

from __future__ import annotations

from typing import Protocol

import torch
from diffusers import UNet2DModel
from torch import Tensor

from ddim_core.batches import in_fixed_batches
from ddim_core.seeding import seeded_weights
from ddim_core.specs import ToyModelSpec

PIXELS_PER_BATCH = 4096
MAX_BATCH = 64


class EpsModel(Protocol):
    """Predicts the noise (or x0, or v) in images; a plain function will do."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Maps noisy images [n, ...] and their timesteps int64 [n] to a prediction [n, ...]."""


class UNetModel:
    """Makes a diffusers `UNet2DModel` an EpsModel whose answer for an image never changes.

    On a CPU the network always runs on batches of one size, given by the image size alone (64 at
    8x8, 16 at 16x16, 4 at 32x32), so a prediction is bit-equal for every caller's batch size,
    place in the batch and number of threads. On other devices the caller's batch is used as it is.

    Args:
        unet: An unconditional network; it is put into evaluation mode and channels-last layout.
    """

    def __init__(self, unet: UNet2DModel) -> None:
        self.unet = unet.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Predicts for images [n, c, h, w] at timesteps [n]; the result has the images' dtype."""
        if x_t.device.type != "cpu":
            with torch.inference_mode():
                return self._predict(x_t, t)
        size = max(1, min(MAX_BATCH, PIXELS_PER_BATCH // (x_t.shape[-2] * x_t.shape[-1])))
        return in_fixed_batches(self._predict, size, x_t, t)

    def _predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        x = x_t.to(dtype=self.unet.dtype, memory_format=torch.channels_last)
        return self.unet(x, t, return_dict=False)[0].to(x_t.dtype)


def toy_unet(spec: ToyModelSpec, seed: int) -> UNet2DModel:
    """Builds an untrained U-Net; its weights follow from the seed, the global stream is left alone.

    Args:
        spec: Shape of the network.
        seed: Keys the initial weights.
    """
    levels = range(len(spec.widths))
    with seeded_weights(seed):
        return UNet2DModel(
            sample_size=spec.resolution,
            in_channels=spec.channels,
            out_channels=spec.channels,
            block_out_channels=spec.widths,
            layers_per_block=spec.layers_per_block,
            norm_num_groups=spec.norm_groups,
            down_block_types=tuple(_block("Down", i in spec.attention) for i in levels),
            up_block_types=tuple(_block("Up", i in spec.attention) for i in reversed(levels)),
            add_attention=bool(spec.attention),
        )


def _block(direction: str, attention: bool) -> str:
    return f"{'Attn' if attention else ''}{direction}Block2D"
