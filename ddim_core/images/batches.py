"""Images drawn a batch at a time, all batches of one size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.images.pixels import to_uint8


def in_batches(
    n_images: int, batch_size: int, batch: Callable[[list[int]], Tensor], n_before: int = 0
) -> NDArray[np.uint8]:
    """Draws images in batches of one size, filled up with its first image.

    A library's sums go in another order in a batch of another size: so an image's bits depend on
    neither its place nor its neighbours.

    Args:
        n_images: At least one.
        batch_size: Images at once.
        batch: Returns the images of some rows, floats in [0, 1], [batch_size, channels, height,
            width].
        n_before: Images that were drawn before these: each of these has the place in its batch that
            it would have had after them.

    Returns:
        uint8 [n_images, height, width, channels].

    Raises:
        ValueError: If a pixel is not finite.
    """
    made = []
    for begin in range(-(n_before % batch_size), n_images, batch_size):
        rows = range(begin, begin + batch_size)
        pixels = batch([row if 0 <= row < n_images else max(begin, 0) for row in rows])
        wanted = slice(max(-begin, 0), min(n_images - begin, batch_size))
        made.append(to_uint8(pixels[wanted] * 2.0 - 1.0))
    return np.concatenate(made)
