"""Feature extractors: images in, rows of numbers out, for distances between sets of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.recorded import Recorded

IMAGES_AT_ONCE = 256
MOST_PIXELS = 64 * 64 * 3


@dataclass(frozen=True)
class FeatureRecord(Recorded):
    """What two sets of features have to agree in before their distance means anything.

    Attributes:
        extractor: The network's name.
        extractor_weights_digest: The sha256 of its weights (of a folder: of its list of digests,
            as the store names it); empty where there are none.
        layer: Where in the network the features are read.
        resize: The one resize between an image's native size and the network, by its name in
            `ddim_core.features.resize`, or `none`.
        resize_library, resize_filter: Whose resize it is, and what it computes.
        quantisation: How pixels became whole numbers before it, and whether they do after it.
        scaling: From bytes v in 0..255 to what the network sees.
        network: Whose implementation runs.
    """

    extractor: str
    extractor_weights_digest: str
    layer: str
    resize: str
    resize_library: str
    resize_filter: str
    scaling: str
    network: str
    quantisation: str = "uint8, before the resize; none after it"


class FeatureExtractor(Protocol):
    """Maps images to features; the batch is the extractor's own affair and changes no feature.

    Attributes:
        name: For people and for the table.
        digest: The sha256 of all that decides the features.
        record: All that decides the features, in words.
        dim: d, the number of features.
        channels: Of the images it takes; None takes grey and RGB alike.
        has_classes: Whether the network is a classifier.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def record(self) -> FeatureRecord: ...
    @property
    def dim(self) -> int: ...
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, height, width, channels] to float32 [n, d]."""

    @property
    def channels(self) -> int | None: ...
    @property
    def has_classes(self) -> bool: ...
    def class_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Maps its own features [n, d] to the logits of its classes [n, c]."""


class PixelFeatures:
    """The pixels themselves, divided by 255, in row-major order [height, width, channels].

    Args:
        height, width, channels: Shape of one image.

    Raises:
        ValueError: If it has more than 12,288 values (1.2 GB of covariance).
    """

    name = "pixels"
    has_classes = False

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.shape = (height, width, channels)
        self.channels, self.dim = channels, height * width * channels
        if self.dim > MOST_PIXELS:
            raise ValueError(
                f"images of {height}x{width}x{channels} have {self.dim} pixel values, whose "
                f"covariance fills memory; pixels features take at most {MOST_PIXELS} (64x64 RGB)"
            )
        self.record = FeatureRecord(
            self.name, "", "all pixels", "none", "none", "none", "v / 255", "none"
        )
        self.digest = self.record.digest

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, c] to float32 [n, h w c] in [0, 1]."""
        require_images(images, self.shape)
        return images.reshape(len(images), -1).astype(np.float32) / np.float32(255.0)

    def class_scores(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Pixels have no classes: raises ValueError."""
        raise ValueError("pixels have no classes")


def in_groups(images: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    """Yields images that come one by one in lists of 256, in their order."""
    coming = iter(images)
    while group := list(islice(coming, IMAGES_AT_ONCE)):
        yield group


def features_of(
    extractor: FeatureExtractor, images: Sequence[NDArray[np.uint8]]
) -> NDArray[np.float32]:
    """Extracts features [n, d] of images [h, w, c], each of its own native size."""
    rows = np.empty((len(images), extractor.dim), np.float32)
    sizes = [image.shape for image in images]
    for shape in dict.fromkeys(sizes):
        chosen = [i for i, size in enumerate(sizes) if size == shape]
        rows[chosen] = extractor(np.stack([images[i] for i in chosen]))
    return rows


def require_images(images: NDArray[np.uint8], shape: tuple[int, ...]) -> None:
    """Refuses what is not uint8 [n >= 1, *shape]."""
    if images.dtype != np.uint8 or images.shape[1:] != shape or len(images) == 0:
        raise ValueError(
            f"images are {images.dtype} of shape {images.shape}; "
            f"they must be uint8 [n >= 1, {', '.join(map(str, shape))}]"
        )
