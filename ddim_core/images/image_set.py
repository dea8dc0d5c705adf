"""Images in memory, with what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory.

    Attributes:
        images: uint8 [n, height, width, channels], channels 1 or 3.
        labels: int64 [n], or None where the data has no classes.
        name: The data set's name for people, never a path.
        split: Which part of it.
        class_names: What the labels mean, over all splits; empty where there are no labels.
        captions: One text an image, or None.
        fingerprint: sha256 over the pixels as they were before resizing, labels and captions.
        broken: The images that were left out, each with the reason.
        resized: Whether any image had another size before.
        licence: Under which the images are, where that is known.
        notes: What was left out of its place, and how the rest was understood, in sentences.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    name: str
    split: str
    class_names: tuple[str, ...] = ()
    captions: tuple[str, ...] | None = None
    fingerprint: str = ""
    broken: tuple[str, ...] = ()
    resized: bool = False
    licence: str = ""
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)
