"""The only place where [-1, 1] floats become uint8 pixels and back."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """Turns float images into bytes: round(255 (x + 1) / 2), clamped to 0..255.

    Halves go to the even neighbour, as in diffusers (`numpy_to_pil`). The official DDIM code
    (torchvision `save_image`) rounds them up; x = 0 becomes 128 either way.

    Args:
        x: Images [n, channels, height, width]; pixels in [-1, 1], those outside are clamped.

    Returns:
        uint8 [n, height, width, channels].

    Raises:
        ValueError: If a pixel is not finite, or the shape is not four-dimensional.
    """
    if x.ndim != 4:
        raise ValueError(f"images have shape {tuple(x.shape)}; they must be [n, c, h, w]")
    if not bool(torch.isfinite(x).all()):
        n_bad = int((~torch.isfinite(x)).sum())
        raise ValueError(f"{n_bad} of {x.numel()} pixels are NaN or infinite; all must be finite")
    levels = ((x.detach().float() + 1.0) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def from_uint8(images: NDArray[np.uint8]) -> Tensor:
    """Turns bytes [n, h, w, c] into float32 images [n, c, h, w] in [-1, 1]: x = v / 127.5 - 1."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; they must be uint8 [n, h, w, c]"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return pixels.float() / 127.5 - 1.0
