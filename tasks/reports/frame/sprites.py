"""Pictures of a page: strips of each cell's first images, small enough to stand in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOST_BYTES = 3_000_000  # of all strips together, as base64; a page stays below 5 MB
FEWEST, LARGEST, EXACT = 4, 256, 64  # images a cell; pixels a side; up to here every pixel is kept
SMALLEST = 32  # pixels a side


@dataclass(frozen=True)
class Sprites:
    """Strips of images side by side.

    Attributes:
        width, height: Pixels of an image in a strip.
        count: Images of a strip.
        sheets: By name, a `data:` address that a browser reads.
    """

    width: int
    height: int
    count: int
    sheets: dict[str, str]


def sprites(
    images: Mapping[str, NDArray[np.uint8]],
    most: int = MOST_BYTES,
    fewest: int = FEWEST,
    smallest: int = SMALLEST,
) -> Sprites:
    """Makes strips of as many images as fit: fewer where they are large, then smaller ones.

    Up to 64 pixels a side they are PNG and exact; larger ones are WebP, of at most 256 pixels.

    Args:
        images: uint8 [n, height, width, channels] by the strip's name, all of one shape.
        most: Bytes of all strips together, as base64.
        fewest, smallest: Images of a strip, and pixels a side, below which it is not gone before
            the other is so small.
    """
    first = next(iter(images.values()))
    count = min(len(batch) for batch in images.values())
    side = min(LARGEST, max(first.shape[1:3]))
    while True:
        last = count == 1 and side <= smallest
        # One strip tells of most what does not fit, without the work of all.
        one = _strips(dict([next(iter(images.items()))]), count, side)
        if last or _weight(one) * len(images) <= 1.2 * most:
            found = _strips(images, count, side)
            if last or _weight(found) <= most:
                return found
        if count > fewest or side <= smallest:
            count = max(1, count // 2)
        else:
            side = max(smallest, side // 2)


def _weight(found: Sprites) -> int:
    return sum(map(len, found.sheets.values()))


def _strips(images: Mapping[str, NDArray[np.uint8]], count: int, side: int) -> Sprites:
    height, width = next(iter(images.values())).shape[1:3]
    scale = min(1.0, side / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheets = {name: _strip(batch[:count], size) for name, batch in images.items()}
    return Sprites(*size, count, sheets)


def _strip(batch: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """[n, height, width, channels] as one image, side by side."""
    strip = Image.new("RGB", (size[0] * len(batch), size[1]))
    for i, pixels in enumerate(batch):
        image = Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels)
        image = image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
        strip.paste(image, (i * size[0], 0))
    exact = max(size) <= EXACT
    kind, options = ("png", {"optimize": True}) if exact else ("webp", {"quality": 80, "method": 2})
    buffer = io.BytesIO()
    strip.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
