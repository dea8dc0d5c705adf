"""The real image nearest to each picture of a page, so that a person sees what is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # pixels a side, at most, at which images are compared
CHUNK = 2048  # real images at a time
UNIT = "root mean square of the difference in pixels, 0 to 255"

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class NearestReal:
    """By the name of a batch, for each image: the place of its nearest real image, and how far
    that is (root mean square over pixels of 0..255, at up to 32 pixels a side)."""

    numbers: dict[str, list[int]]
    distances: dict[str, list[float]]


def nearest_real(images: Mapping[str, Images], real: Images) -> NearestReal:
    """Looks for the nearest real image by pixels.

    Args:
        images: uint8 [n, height, width, channels] by name.
        real: uint8 [m, height, width, channels] of as many channels, at least one.
    """
    side = min(SIDE, next(iter(images.values())).shape[1])
    asked = np.concatenate([_small(batch, side) for batch in images.values()])
    best, found = np.full(len(asked), np.inf), np.zeros(len(asked), np.int64)
    for start in range(0, len(real), CHUNK):
        chunk = _small(real[start : start + CHUNK], side)
        squares = (asked**2).sum(1)[:, None] + (chunk**2).sum(1) - 2.0 * asked @ chunk.T
        at = squares.argmin(axis=1)
        # The expansion above loses digits where images are alike; of the nearest, take them anew.
        exact = ((asked - chunk[at]).astype(np.float64) ** 2).mean(axis=1)
        nearer = exact < best
        best[nearer], found[nearer] = exact[nearer], start + at[nearer]
    cuts = np.cumsum([len(batch) for batch in images.values()])[:-1]
    return NearestReal(
        {name: each.tolist() for name, each in zip(images, np.split(found, cuts), strict=True)},
        {
            name: np.sqrt(each).tolist()
            for name, each in zip(images, np.split(best, cuts), strict=True)
        },
    )


def _small(batch: Images, side: int) -> NDArray[np.float32]:
    """[n, side * side * channels], each pixel the mean of those that it covers."""
    if batch.shape[1:3] != (side, side):
        batch = np.stack([_shrunk(image, side) for image in batch])
    return batch.reshape(len(batch), -1).astype(np.float32)


def _shrunk(image: Images, side: int) -> Images:
    flat = Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)
    return np.asarray(flat.resize((side, side), Image.Resampling.BOX)).reshape(side, side, -1)
