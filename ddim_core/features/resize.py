"""The one resize between an image's native size and a network, in three people's ways.

The choice moves a Frechet distance by more than many a model improvement (Parmar, Zhang and Zhu
2022, arXiv:2104.11222), so it is part of a protocol's name. All three go straight from the native
size to the network's square, whatever the sides' ratio, and none rounds afterwards.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ddim_core.diffusion.specs import RESIZES


class ResizeRule(NamedTuple):
    """Whose resize it is (a distribution's name) and what it computes."""

    library: str
    filter: str

    @property
    def version(self) -> str:
        """The installed version of the library, for the record."""
        return version(self.library)


RULES = {
    "tf1": ResizeRule("torch-fidelity", "bilinear of TensorFlow 1: v = i n / m, no antialiasing"),
    "clean": ResizeRule("pillow", "bicubic, antialiased, in float32, clipped to 0..255"),
    "torch": ResizeRule("torch", "bilinear, half-pixel centres, no antialiasing"),
}


def resized(images: NDArray[np.uint8], size: int, how: str) -> Tensor:
    """Resizes images of one native size to size x size pixels.

    - `tf1`: as the TensorFlow 1 graph of the first FID code, by torch-fidelity;
    - `clean`: as clean-fid, Pillow's antialiased bicubic on each channel in float32;
    - `torch`: as pytorch-fid, torch's `interpolate(mode="bilinear", align_corners=False)`.

    Args:
        images: uint8 [n, h, w, 1 or 3]; grey images get three equal channels.
        size: Height and width in pixels.
        how: One of `RESIZES`.

    Returns:
        float32 [n, 3, size, size] in 0..255, not rounded.

    Raises:
        ValueError: If `how` is unknown, or the images are not of this form.
    """
    if how not in RULES:
        raise ValueError(f"resize is {how!r}; it must be one of {', '.join(RESIZES)}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; they must be uint8 [n, h, w, 1 "
            "or 3]"
        )
    if how == "clean":
        return torch.from_numpy(np.stack([_clean(image, size) for image in images]))
    return resized_by_torch(torch.from_numpy(np.ascontiguousarray(images)), size, how)


def resized_by_torch(images: Tensor, size: int, how: str) -> Tensor:
    """Does what `resized` does, by torch alone, on whatever device the images lie.

    `clean` is torch's antialiased bicubic in float64, within 3e-5 levels of Pillow's in float32. On
    a GPU `tf1` is within 1e-4 levels of what it is on a CPU, by its authors' measure.

    Args:
        images: uint8 [n, h, w, 1 or 3].
        size, how: As of `resized`.
    """
    pixels = images.permute(0, 3, 1, 2).contiguous().float()
    if how == "clean":
        exact = F.interpolate(
            pixels.double(), size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
        pixels = exact.float().clamp(0.0, 255.0)
    elif how == "tf1":
        from torch_fidelity import interpolate_compat_tensorflow as tf1  # slow to import

        pixels = tf1.interpolate_bilinear_2d_like_tensorflow1x(
            pixels, size=(size, size), align_corners=False
        )
    else:
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False)
    return pixels.expand(-1, 3, -1, -1)


def _clean(image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    channels = [
        np.asarray(
            Image.fromarray(image[:, :, channel].astype(np.float32)).resize(
                (size, size), Image.Resampling.BICUBIC
            )
        )
        for channel in range(image.shape[2])
    ]
    if len(channels) == 1:
        channels *= 3
    return np.stack(channels).clip(0.0, 255.0)
