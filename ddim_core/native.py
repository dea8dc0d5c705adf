"""Images of a data set one by one, at their native size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddim_core.decode import resized
from ddim_core.images import Reading, open_source
from ddim_core.sources import ALL
from ddim_core.specs import ImageSpec, require_at_least


def native_images(
    place: str, split: str = ALL, resolution: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yields the images of a data set in a fixed order, each uint8 [h, w, 1 or 3] of its own size.

    No more than one is in memory.

    Args:
        place: See `images.open_source`.
        split: A part of it; `all` takes everything.
        resolution: Resize the short side to so many pixels and crop the centre, as a data set is
            prepared for a model of this size; None keeps the native size.

    Raises:
        ValueError: If there is no such set or split, it is empty, or an image cannot be read.
    """
    if resolution is not None:
        require_at_least("resolution", resolution, 1)
    source = open_source(place)
    if split not in (ALL, *source.splits):
        there_is = ", ".join([ALL, *source.splits])
        raise ValueError(f"{Path(place).name} has no split {split!r}; it has {there_is}")
    for image in Reading(source, split, ImageSpec()):
        pixels = np.asarray(image if resolution is None else resized(image, resolution))
        yield pixels if pixels.ndim == 3 else pixels[:, :, None]


def is_grey(image: NDArray[np.uint8]) -> bool:
    """Tells whether an image [h, w, 1 or 3] has no colour."""
    return bool((image == image[:, :, :1]).all())


def in_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Gives an image [h, w, 1 or 3] one channel, if it is grey, or three.

    Raises:
        ValueError: If it has colours and one channel is wanted.
    """
    if image.shape[2] == channels:
        return image
    if channels == 1 and not is_grey(image):
        raise ValueError("an image is coloured, where the features are of grey images")
    return image[:, :, :1] if channels == 1 else image.repeat(channels, axis=2)
