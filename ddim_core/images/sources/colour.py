"""Colours by name, and drawings with transparency laid on them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import ImageColor

from ddim_core.common.checks import nearest


def composite(rgba: NDArray[np.uint8], background: str) -> NDArray[np.uint8]:
    """Lays images over one colour: (alpha c + (255 - alpha) b) / 255, rounded to the nearest.

    Args:
        rgba: uint8 [..., 4], alpha not premultiplied.
        background: A CSS colour: a name such as `blue`, or `#rrggbb`.

    Returns:
        uint8 [..., 3].

    Raises:
        ValueError: If there is no such colour.
    """
    colour = np.array(rgb_of(background), dtype=np.uint32)
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = alpha * rgba[..., :3] + (255 - alpha) * colour
    return ((mixed + 127) // 255).astype(np.uint8)  # 255 is odd: there are no halves


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Returns red, green and blue, 0..255, of a CSS colour.

    Raises:
        ValueError: If there is no such colour, or it is not opaque.
    """
    try:
        channels = ImageColor.getrgb(colour)
        if len(channels) == 3:
            return channels
    except ValueError:
        pass
    raise ValueError(
        f"background is {colour!r}{nearest(colour, ImageColor.colormap)}; it must be a CSS colour, "
        "such as skyblue or #87ceeb"
    )
