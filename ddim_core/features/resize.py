"""The one resize between an image's native size and a network, in six people's ways.

The choice moves a Frechet distance by more than many a model improvement (Parmar, Zhang and Zhu
2022, arXiv:2104.11222), so it is part of a protocol's name. All but `crop` go straight from the
native size to the network's square, whatever the sides' ratio; only `pillow` and `crop` round
afterwards.
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

UNROUNDED = "uint8, before the resize; none after it"
ROUNDED = "uint8, before the resize and after it"


class ResizeRule(NamedTuple):
    """Whose resize it is (a distribution's name), what it computes, and what is rounded."""

    library: str
    filter: str
    quantisation: str = UNROUNDED

    @property
    def version(self) -> str:
        """The installed version of the library, for the record."""
        return version(self.library)


RULES = {
    "tf1": ResizeRule("torch-fidelity", "bilinear of TensorFlow 1: v = i n / m, no antialiasing"),
    "clean": ResizeRule("pillow", "bicubic, antialiased, in float32, clipped to 0..255"),
    "torch": ResizeRule("torch", "bilinear, half-pixel centres, no antialiasing"),
    "pillow": ResizeRule("pillow", "bicubic, antialiased, of bytes", ROUNDED),
    "bicubic": ResizeRule("torch", "bicubic, antialiased, in float32, not clipped"),
    "crop": ResizeRule("pillow", "centre square, then bicubic, antialiased, of bytes", ROUNDED),
}


def resized(images: NDArray[np.uint8], size: int, how: str) -> Tensor:
    """Resizes images of one native size to size x size pixels.

    - `tf1`: as the TensorFlow 1 graph of the first FID code, by torch-fidelity;
    - `clean`: as clean-fid, Pillow's antialiased bicubic on each channel in float32;
    - `torch`: as pytorch-fid, torch's `interpolate(mode="bilinear", align_corners=False)`;
    - `pillow`: as dgm-eval, Pillow's antialiased bicubic on bytes;
    - `bicubic`: as EDM2, torch's antialiased bicubic in float32, which may leave 0..255;
    - `crop`: as google-research's cmmd, the largest square in the middle by Pillow's bicubic.

    Args:
        images: uint8 [n, h, w, 1 or 3]; grey images get three equal channels.
        size: Height and width in pixels.
        how: One of `RESIZES`.

    Returns:
        float32 [n, 3, size, size] in 0..255; `bicubic` overshoots by some levels.

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
    if how in BYTES_BY_PILLOW:
        small = np.stack([BYTES_BY_PILLOW[how](image, size) for image in images])
        return torch.from_numpy(small.transpose(0, 3, 1, 2).astype(np.float32))
    if how == "clean":
        return torch.from_numpy(np.stack([_clean(image, size) for image in images]))
    return resized_by_torch(torch.from_numpy(np.ascontiguousarray(images)), size, how)


def resized_by_torch(images: Tensor, size: int, how: str) -> Tensor:
    """Does what `resized` does, by torch alone, on whatever device the images lie.

    `clean` is torch's antialiased bicubic in float64, within 3e-5 levels of Pillow's in float32. On
    a GPU `tf1` is within 1e-4 levels of what it is on a CPU, by its authors' measure.

    Args:
        images: uint8 [n, h, w, 1 or 3].
        size: As of `resized`.
        how: Likewise, but for those of `BYTES_BY_PILLOW`: torch rounds bytes otherwise, by whole
            levels where a row shrinks and a column grows.

    Raises:
        ValueError: If it is one of those.
    """
    if how in BYTES_BY_PILLOW:
        raise ValueError(f"resize {how} is Pillow's alone; torch would make other bytes")
    pixels = images.permute(0, 3, 1, 2).contiguous().float()
    if how == "clean":
        exact = F.interpolate(
            pixels.double(), size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
        pixels = exact.float().clamp(0.0, 255.0)
    elif how == "bicubic":
        pixels = F.interpolate(
            pixels, size=(size, size), mode="bicubic", antialias=True, align_corners=False
        )
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


def _pillow(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    rgb = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BICUBIC))


def _crop(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return _pillow(_square(image), size)


def _square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest square in the middle of pixels [h, w, c], the odd one left at the end."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


# From one image's bytes [h, w, 1 or 3] to [size, size, 3], bytes again.
BYTES_BY_PILLOW = {"pillow": _pillow, "crop": _crop}
