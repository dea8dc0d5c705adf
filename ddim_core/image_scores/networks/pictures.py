"""Bytes to what a network sees: the two ways in which people cut pictures to a square."""

from __future__ import annotations

import torch
from torch import Tensor

# Of v / 255, as OpenAI's CLIP was trained; all scores of this room take them.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def short_side_cropped(images: Tensor, size: int) -> Tensor:
    """Resizes the short side to `size` by Pillow's bicubic (antialiased, rounded to bytes), cuts
    out the centre, and normalises.

    By torchvision's own transforms, in the order in which CLIP, CLIPScore and ImageReward do it.

    Args:
        images: uint8 [n, h, w, 1 or 3].
        size: Height and width in pixels.

    Returns:
        float32 [n, 3, size, size], (v / 255 - mean) / std.
    """
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor

    cut = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size), ToTensor()])
    rgb = images.expand(-1, -1, -1, 3).numpy()
    return _normalised(torch.stack([cut(Image.fromarray(picture)) for picture in rgb]))


def long_side_padded(images: Tensor, size: int) -> Tensor:
    """Resizes the long side to `size` by torch's bicubic on v / 255 (antialiased, neither clipped
    nor rounded), pads the short side with black on both sides, and normalises.

    As hpsv2's `ResizeMaxSize` under torchvision from 0.17 on; older ones did not antialias there.

    Args:
        images: uint8 [n, h, w, 1 or 3].
        size: Height and width in pixels.

    Returns:
        float32 [n, 3, size, size], (v / 255 - mean) / std.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    pixels = images.permute(0, 3, 1, 2).contiguous().float().div(255.0)
    longest = max(pixels.shape[2:])
    if longest != size:
        sides = [round(side * size / longest) for side in pixels.shape[2:]]
        pixels = F.resize(pixels, sides, InterpolationMode.BICUBIC, antialias=True)
    down, across = (size - side for side in pixels.shape[2:])
    padding = [across // 2, down // 2, across - across // 2, down - down // 2]
    return _normalised(F.pad(pixels, padding).expand(-1, 3, -1, -1))


def _normalised(pixels: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std
