"""Images drawn a batch at a time, all batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.images.pixels import to_uint8


def in_batches(
    n_images: int, batch_size: int, batch: Callable[[list[int]], Tensor]
) -> NDArray[np.uint8]:
    """Draws images in batches of one size, the last one filled up with its first image.

    A library's sums go in another order in a batch of another size: so an image's bits depend on
    neither its place nor its neighbours.

    Args:
        n_images: At least one.
        batch_size: Images at once.
        batch: Returns the images of some rows, floats in [0, 1], [batch_size, channels, height,
            width].

    Returns:
        uint8 [n_images, height, width, channels].

    Raises:
        ValueError: If a pixel is not finite.
    """
    made = []
    for begin in range(0, n_images, batch_size):
        chosen = list(range(begin, min(begin + batch_size, n_images)))
        pixels = batch(chosen + chosen[:1] * (batch_size - len(chosen)))
        made.append(to_uint8(pixels[: len(chosen)] * 2.0 - 1.0))
    return np.concatenate(made)
