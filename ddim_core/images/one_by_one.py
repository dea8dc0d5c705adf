"""Images of a data set one by one, at their native size."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddim_core.common.checks import require_side
from ddim_core.common.printable import printable
from ddim_core.images.load import open_source
from ddim_core.images.sources.decode import FORMATS, BrokenImageError, decode, resized
from ddim_core.images.sources.source import ALL, Source

ORIENTATION = 0x0112  # EXIF


@dataclass
class NativeImages:
    """The images of a data set in a fixed order, each uint8 [h, w, 1 or 3] of its own size.

    No more than one is in memory.

    Attributes:
        source: Where they are, see `images.open_source`.
        split: A part of it; `all` takes everything.
        resolution: Resize the short side to so many pixels and crop the centre, as a data set is
            prepared for a model of this size; None keeps the native size.
        read: Makes pixels of a file's bytes: `decode`, or `as_stored`.
        n_otherwise: Of those read so far, how many the other reader makes other pixels of.
        classes: The class of each read so far, by name; None of one that has none.

    Raises:
        ValueError: While iterating, at an image that cannot be read, or if there is none.
    """

    source: Source
    split: str
    resolution: int | None
    read: Callable[[bytes], Image.Image]
    n_otherwise: int = 0
    classes: list[str | None] = field(default_factory=list)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        row = None
        for row in self.source.rows(self.split):
            try:
                data = row.read()
                image = self.read(data)
                self.n_otherwise += _is_read_two_ways(data)
            except (BrokenImageError, OSError) as error:
                raise ValueError(f"{row.where} {printable(str(error))}") from error
            pixels = np.asarray(
                image if self.resolution is None else resized(image, self.resolution)
            )
            self.classes.append(row.label)
            yield pixels if pixels.ndim == 3 else pixels[:, :, None]
        if row is None:
            raise ValueError(f"{self.source.name} {self.split} has no image")


def native_images(
    place: str,
    split: str = ALL,
    resolution: int | None = None,
    read: Callable[[bytes], Image.Image] = decode,
) -> NativeImages:
    """Opens a data set to read its images one by one; the arguments are those of `NativeImages`.

    Raises:
        ValueError: If there is no such set or split.
    """
    if resolution is not None:
        require_side("resolution", resolution)
    source = open_source(place)
    if split not in (ALL, *source.splits):
        there_is = ", ".join([ALL, *source.splits])
        raise ValueError(f"{Path(place).name} has no split {split!r}; it has {there_is}")
    return NativeImages(source, split, resolution, read)


def as_stored(data: bytes) -> Image.Image:
    """Reads one image as torch-fidelity, pytorch-fid and clean-fid do: `convert("RGB")`.

    That shows the colours below transparent pixels, and leaves a photograph lying on its side
    that its EXIF orientation would turn; `decode` does neither.

    Raises:
        BrokenImageError: As `decode`.
    """
    decode(data)  # refuses what is damaged, too large or too deep
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        return opened.convert("RGB")


def _is_read_two_ways(data: bytes) -> bool:
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        # A PNG would be decoded in search of what is not there.
        may_turn = "exif" in header.info or header.format == "TIFF"
        turned = may_turn and header.getexif().get(ORIENTATION, 1) != 1
        if not (turned or header.has_transparency_data):
            return False
    one, other = decode(data).convert("RGB"), as_stored(data)
    return one.size != other.size or one.tobytes() != other.tobytes()


def is_grey(image: NDArray[np.uint8]) -> bool:
    """Tells whether an image [h, w, 1 or 3] has no colour."""
    return bool((image == image[:, :, :1]).all())


def all_grey(images: NativeImages) -> bool:
    """Tells whether no image of a set has a colour, by reading it up to the first that has one."""
    return all(is_grey(image) for image in replace(images, n_otherwise=0, classes=[]))


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
