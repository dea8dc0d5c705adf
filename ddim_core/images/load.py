"""Real images in: data sets by name or place, read safely, resized once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddim_core.common.checks import nearest, require_side
from ddim_core.common.plain_files import is_there
from ddim_core.common.printable import printable
from ddim_core.diffusion.specs import ImageSpec
from ddim_core.images.embedded import DigitsSource, EmojiSource, SmileysSource
from ddim_core.images.emoji import EMOJI_SIZE
from ddim_core.images.image_set import ImageSet
from ddim_core.images.moments import MomentsSource, is_moments
from ddim_core.images.sources.archives import archive_tree, is_archive
from ddim_core.images.sources.arrays import array_source, is_array_file
from ddim_core.images.sources.colour import rgb_of
from ddim_core.images.sources.decode import BrokenImageError, decode, resized
from ddim_core.images.sources.file_tree import FolderTree
from ddim_core.images.sources.folder import FolderSource, is_image
from ddim_core.images.sources.source import ALL, Row, Source
from ddim_core.images.sources.table import (
    HUB_ID,
    file_source,
    hub_source,
    is_saved_dataset,
    is_table,
    saved_source,
)

DIGITS_SIZE = 8
MOST_NAMED = 3
EMBEDDED = ("digits", "emoji", "smileys")
PLACES = (
    "digits, emoji, smileys, a folder of images, a .parquet or .arrow file with an image column, "
    "a .zip or .tar of images, an .npz or .npy of them, or owner/name of a Hugging Face data set"
)


class Form(NamedTuple):
    """A file that is a data set: what tells it by its name, and what opens it."""

    fits: Callable[[Path], bool]
    open: Callable[[Path], Source]


FORMS = (  # a new one adds its line, and its name to PLACES
    Form(lambda path: is_moments(str(path)), MomentsSource),
    Form(is_table, file_source),
    Form(is_archive, lambda path: FolderSource.of(archive_tree(path))),
    Form(is_array_file, array_source),
)


def open_source(dataset: str, spec: ImageSpec = ImageSpec()) -> Source:  # noqa: B008 (frozen)
    """Opens a data set by its name or place, without reading its images.

    - `digits`, `emoji` and `smileys` come with packages;
    - a folder of image files, flat or with a folder per class (sorted names give 0, 1, ...);
      folders `train`, `val`, `validation` or `test` are its splits (the layout of AFHQ);
      `metadata.jsonl` (or `.csv`, `.parquet`) beside the images has their captions, or else a
      `.txt` beside each;
    - a `.zip`, `.tar`, `.tar.gz` or `.tgz` of such a folder; an `.npz` or `.npy` of pixels;
    - a `.parquet` or `.arrow` file with one image column, and `label` and `text` if there are any;
    - an `.npz` of `mu` and `sigma` or EDM2's `.pkl`: a reference without images;
    - a folder that `datasets` wrote or reads, or `owner/name` (`owner/name:configuration`) on
      the Hugging Face hub. A place on this machine comes before a name on the hub.

    Raises:
        ValueError: If there is no such data set.
    """
    if dataset == "digits":
        return DigitsSource()
    if dataset == "emoji":
        return EmojiSource(spec.skin_tones)
    if dataset == "smileys":
        return SmileysSource()
    path = Path(dataset)
    if path.is_dir():
        return _folder(path)
    if is_there(path):
        opened = next((form.open for form in FORMS if form.fits(path)), None)
        if opened is None:
            raise ValueError(f"{path.name!r} is no file of a data set; give {PLACES}")
        return opened(path)
    if not path.exists() and any(form.fits(path) for form in FORMS):
        raise ValueError(f"there is no file {dataset!r}; it must be {PLACES}")
    if not path.exists() and HUB_ID.fullmatch(dataset):
        return hub_source(dataset)
    meant = nearest(dataset, EMBEDDED)
    raise ValueError(f"there is no data set {dataset!r}{meant}; it must be {PLACES}")


def load_images(
    dataset: str,
    split: str = ALL,
    resolution: int | None = None,
    channels: int | None = None,
    spec: ImageSpec = ImageSpec(),  # noqa: B008 (frozen)
) -> ImageSet:
    """Loads one split of a data set: `all`, or one of `splits_of`.

    The short side is resized to `resolution` (Pillow bicubic, with antialiasing, on the native
    image) and the centre is cropped; transparency is laid over `spec.background` first.

    Args:
        dataset: See `open_source`.
        split: Which part.
        resolution: Height and width in pixels; None keeps the native size, which must be one.
        channels: 1 makes grey of colours (ITU-R 601), 3 makes RGB of all; None keeps images grey
            where all of them are.
        spec: How many broken images are left out rather than refused, and what else is chosen.

    Raises:
        ValueError: If the data set or the split is unknown, if more images are broken than
            `spec.max_broken`, or if native sizes differ and no resolution is given.
    """
    if resolution is not None:
        require_side("resolution", resolution)
    if channels not in (None, 1, 3):
        raise ValueError(f"channels is {channels}; it must be 1 or 3")
    rgb_of(spec.background)
    source = open_source(dataset, spec)
    require_split(source, split)
    _require_possible(source, resolution)
    reading = Reading(source, split, spec)
    coloured = (image.convert("RGB") for image in reading)
    sized = (image if resolution is None else resized(image, resolution) for image in coloured)
    images = _in_channels(_stacked([np.asarray(image) for image in sized]), channels)
    labels = reading.labels()
    return ImageSet(
        images=images,
        labels=labels,
        name=source.name,
        split=split,
        class_names=source.class_names if labels is not None else (),
        captions=reading.captions(),
        fingerprint=reading.fingerprint.hexdigest(),
        broken=tuple(reading.broken),
        resized=any(size != images.shape[2:0:-1] for size in reading.sizes),
        licence=source.licence,
        notes=source.notes,
    )


def splits_of(dataset: str) -> list[str]:
    """Returns the splits that `load_images` knows of a data set.

    Raises:
        ValueError: If the data set is unknown.
    """
    return [ALL, *open_source(dataset).splits]


@dataclass
class Reading:
    """One pass over a split: yields the images that are sound, and keeps what it has seen.

    Attributes:
        broken: What is left out, each with the reason.
        sizes: How many images have each native size (width, height).
        classes, texts: Class name and caption of each sound image.
        fingerprint: Of the native pixels, classes and captions so far.

    Raises:
        ValueError: While iterating, as soon as more than `spec.max_broken` are broken, or at the
            end if no image is sound.
    """

    source: Source
    split: str
    spec: ImageSpec
    broken: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    classes: list[str | None] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fingerprint = hashlib.sha256()

    def __iter__(self) -> Iterator[Image.Image]:
        for row in self.source.rows(self.split):
            try:
                image = decode(row.read(), self.spec.background)
            except (BrokenImageError, OSError) as error:
                self._note(row, error)
                continue
            self.sizes[image.size] += 1
            self.classes.append(row.label)
            self.texts.append(row.caption)
            self.fingerprint.update(repr((image.size, row.label, row.caption)).encode())
            self.fingerprint.update(image.convert("RGB").tobytes())
            yield image
        if not self.classes:
            raise ValueError(f"{self.source.name} {self.split} has no image that can be read")

    def labels(self) -> NDArray[np.int64] | None:
        """The labels of the sound images; None where any has none."""
        if not self.source.class_names or None in self.classes:
            return None
        index = {name: i for i, name in enumerate(self.source.class_names)}
        return np.array([index[str(name)] for name in self.classes], dtype=np.int64)

    def captions(self) -> tuple[str, ...] | None:
        return None if None in self.texts else tuple(str(text) for text in self.texts)

    def _note(self, row: Row, error: Exception) -> None:
        self.broken.append(f"{row.where} {printable(_reason(error))}")
        if len(self.broken) > self.spec.max_broken:
            shown = "; ".join(self.broken[:MOST_NAMED])
            more = ", ..." if len(self.broken) > MOST_NAMED else ""
            raise ValueError(
                f"{shown}{more}; {len(self.broken)} broken images, and max_broken is "
                f"{self.spec.max_broken}"
            ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    return str(error) if isinstance(error, BrokenImageError) else f"cannot be read: {error}"


def _folder(path: Path) -> Source:
    if not is_saved_dataset(path):
        return FolderSource.of(FolderTree(path))
    if any(is_image(file) for file in FolderTree(path).files):
        raise ValueError(
            f"{printable(path.name)} holds both image files and tables; name the folder of one kind"
        )
    return saved_source(path)


def require_split(source: Source, split: str) -> None:
    """Makes sure that a data set has a split.

    Raises:
        ValueError: If it has not.
    """
    if split not in (ALL, *source.splits):
        there_is = ", ".join([ALL, *source.splits])
        raise ValueError(f"{source.name} has no split {split!r}; it has {there_is}")


def _require_possible(source: Source, resolution: int | None) -> None:
    if isinstance(source, DigitsSource) and resolution not in (None, DIGITS_SIZE):
        raise ValueError(f"resolution is {resolution}; digits are 8x8, so it must be 8 or None")
    if isinstance(source, EmojiSource) and resolution is not None and resolution > EMOJI_SIZE:
        raise ValueError(f"resolution is {resolution}; emoji are 72x72, so it must be at most 72")


def _stacked(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"images have {len(shapes)} sizes, among them {sorted(shapes)[:3]}; give a resolution"
        )
    return np.stack(images)


def _in_channels(images: NDArray[np.uint8], channels: int | None) -> NDArray[np.uint8]:
    """Turns RGB images [n, h, w, 3] into the channels wanted, or into one where all are grey."""
    grey = bool((images == images[..., :1]).all())
    if channels == 3 or (channels is None and not grey):
        return images
    if grey:
        return np.ascontiguousarray(images[..., :1])
    return np.stack([np.asarray(Image.fromarray(rgb).convert("L")) for rgb in images])[..., None]
