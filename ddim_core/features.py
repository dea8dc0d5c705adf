"""Feature extractors: images in, rows of numbers out, for distances between sets of images."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class FeatureExtractor(Protocol):
    """Maps images to features; the batch is the extractor's own affair and changes no feature.

    Attributes:
        name: For people and for the table.
        digest: The sha256 of all that decides the features.
        dim: d, the number of features.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def dim(self) -> int: ...
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, height, width, channels] to float32 [n, d]."""


class PixelFeatures:
    """The pixels themselves, divided by 255, in row-major order [height, width, channels].

    Args:
        height, width, channels: Shape of one image.
    """

    name = "pixels"

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.shape = (height, width, channels)
        self.dim = height * width * channels
        self.digest = hashlib.sha256(f"pixels / 255 of {self.shape}".encode()).hexdigest()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to float32 [n, h w c] in [0, 1]."""
        require_images(images, self.shape)
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255.0)


def require_images(images: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    """Refuses what is not uint8 [n >= 1, *shape]."""
    if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; "
            f"they must be uint8 [n >= 1, {', '.join(map(str, shape))}]"
        )
