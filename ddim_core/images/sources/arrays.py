"""Images in NumPy's files: `.npy`, and `.npz` under any key, as ADM, EDM and MedMNIST have them."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import open_regular
from ddim_core.common.printable import printable
from ddim_core.images.sources.decode import netpbm
from ddim_core.images.sources.source import ALL, Row, named
from ddim_core.safe_files.claims.array_headers import (
    MOST_HEADER,
    Header,
    read_header,
    require_length,
    require_plain_entry,
)

ARRAYS = (".npz", ".npy")
CHANNELS = (1, 3, 4)
SPLITS = ("train", "val", "validation", "test")
SPLIT = re.compile(r"(?:^|[_.-])(train|val|validation|test)(?:[_.-]|$)")
NEARLY = 1e-3  # what rounding may add to a range; an eighth of a grey level
MOST_CLASSES = 10_000


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images of an array file; keys such as `train_images` and `x_test` are splits.

    Attributes:
        path: The file.
        images: The keys of image arrays by split; by `all` where there is one array alone.
        labels: The keys of label arrays by split, where there are any.
        unused: The other keys.
    """

    path: Path
    images: Mapping[str, str]
    labels: Mapping[str, str]
    unused: tuple[str, ...]
    licence: str = ""

    @property
    def name(self) -> str:
        return printable(self.path.stem)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in self.images if split != ALL)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        values = [self._arrays[key] for key in self.labels.values()]
        if not values:
            return ()
        low, high = min(int(v.min()) for v in values), max(int(v.max()) for v in values)
        if not 0 <= low <= high < MOST_CLASSES:
            raise ValueError(
                f"{self.name} has labels from {low} to {high}; they must lie in "
                f"0..{MOST_CLASSES - 1}"
            )
        return tuple(str(i) for i in range(high + 1)) if high else ()

    @property
    def notes(self) -> tuple[str, ...]:
        told = [form.told for form in self._forms.values() if form.told]
        if self.unused:
            told.append(f"left out because no images ({len(self.unused)}): {named(self.unused)}")
        return tuple(told)

    def content(self) -> str:
        return file_digest(self.path)

    def rows(self, split: str) -> Iterator[Row]:
        for part in self.images if split == ALL else (split,):
            pixels, form = self._arrays[self.images[part]], self._forms[part]
            labels = self._arrays[self.labels[part]] if part in self.labels else None
            for i in range(len(pixels)):
                label = None if labels is None or not self.class_names else str(int(labels[i]))
                where = f"image {i} of {self.name} {part}".removesuffix(f" {ALL}")
                stem = self.name if part == ALL else f"{self.name}-{part}"
                name = f"{stem}-{i:06d}{form.suffix}"
                yield Row(where, partial(form.encoded, pixels, i), label, None, name)

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = read_arrays(self.path, [*self.images.values(), *self.labels.values()])
        return arrays | {key: arrays[key].reshape(-1) for key in self.labels.values()}

    @cached_property
    def _forms(self) -> dict[str, Form]:
        arrays = {key: self._arrays[key] for key in self.images.values()}
        floats = [array for array in arrays.values() if array.dtype.kind == "f"]
        # One set of images has one black, whichever of its splits is bright.
        darkest = min((float(array.min()) for array in floats), default=0.0)
        return {split: _form(key, arrays[key], darkest) for split, key in self.images.items()}


@dataclass(frozen=True)
class Form:
    """How an array [n, ...] holds images.

    Attributes:
        layout: `nhwc`, `nchw` or `nhw`.
        low: What black is, where values are floats: 0 or -1; white is 1. None for bytes.
        channels: 1, 3 or 4.
        told: What is not plain of it, in a sentence, or "".
    """

    layout: str
    low: int | None
    channels: int
    told: str

    @property
    def suffix(self) -> str:
        return ".png" if self.channels == 4 else ".ppm"

    def encoded(self, array: NDArray[Any], index: int) -> bytes:
        """Image `index` as a PPM, PGM or (with transparency) PNG file."""
        pixels = np.asarray(array[index])
        if self.layout == "nhw":
            pixels = pixels[:, :, None]
        elif self.layout == "nchw":
            pixels = pixels.transpose(1, 2, 0)
        if self.low is not None:
            unit = (pixels.astype(np.float64) - self.low) / (1 - self.low)
            pixels = np.rint(np.clip(unit, 0.0, 1.0) * 255.0).astype(np.uint8)
        if self.channels < 4:
            return netpbm(np.ascontiguousarray(pixels))
        file = io.BytesIO()
        Image.fromarray(pixels, "RGBA").save(file, "PNG", compress_level=1)
        return file.getvalue()


def is_array_file(path: Path) -> bool:
    """Tells by its name whether a file is one of NumPy's."""
    return path.suffix.lower() in ARRAYS


def array_source(path: Path) -> ArraySource:
    """Opens a file of image arrays, whose values are read when rows are.

    Raises:
        ValueError: If it holds no images, or several sets that are no splits.
    """
    headers = array_headers(path)
    images = image_keys(headers)
    if not images:
        there_is = ", ".join(f"{k} {h.dtype} {list(h.shape)}".strip() for k, h in headers.items())
        raise ValueError(
            f"{printable(path.name)} holds {printable(there_is) or 'nothing'}; it must hold images "
            "[n, h, w, c], [n, c, h, w] or [n, h, w]: uint8, or floats in [0, 1] or [-1, 1]"
        )
    by_split = {ALL: images[0]} if len(images) == 1 else _by_split(images)
    if len(by_split) < len(images):
        raise ValueError(
            f"{printable(path.name)} has several arrays of images ({named(images)}); it must have "
            "one, or one for each split, such as train_images and test_images"
        )
    labels = _labels(headers, by_split)
    used = {*by_split.values(), *labels.values()}
    return ArraySource(path, by_split, labels, tuple(key for key in headers if key not in used))


def array_headers(path: Path) -> dict[str, Header]:
    """Returns what the arrays of an .npz or .npy say of themselves; an .npy's key is "".

    Raises:
        ValueError: If it is damaged, or an array claims to be larger than its file can hold.
    """
    try:
        with open_regular(path) as file:
            if path.suffix.lower() == ".npy":
                length = file.seek(0, io.SEEK_END)
                file.seek(0)
                header, start = read_header(file, length)
                require_length(header, length - start)
                return {"": header}
            with zipfile.ZipFile(file) as archive:
                return {
                    key: _entry_header(archive, entry, key)
                    for key, entry in _array_entries(archive).items()
                }
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError,
            ValueError) as error:  # fmt: skip
        raise _damaged(path, error) from error


def read_arrays(path: Path, keys: list[str]) -> dict[str, NDArray[Any]]:
    """Reads arrays that `array_headers` knows; nothing pickled is read.

    Raises:
        ValueError: If one is damaged, or of Python's objects.
    """
    headers = array_headers(path)
    try:
        for key in keys:
            if headers[key].dtype.hasobject:
                raise ValueError(
                    f"{printable(key) or 'it'} holds Python objects, which are pickled"
                )
        if path.suffix.lower() == ".npy":
            whole = np.lib.format.open_memmap(path, mode="r", max_header_size=MOST_HEADER)
            return {"": whole}
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            entries = _array_entries(archive)
            return {key: _read_entry(archive, entries[key]) for key in keys}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    kind = path.suffix.lower()
    return ValueError(f"{printable(path.name)} is no {kind} of plain arrays: {reason}")


def _array_entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        key = entry.filename.removesuffix(".npy")
        if key in found:
            raise ValueError(f"it holds {printable(key)!r} twice")
        if entry.filename.endswith(".npy"):
            found[key] = entry
    return found


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as file:
        read: NDArray[Any] = np.lib.format.read_array(
            file, allow_pickle=False, max_header_size=MOST_HEADER
        )
    return read


def _entry_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, key: str) -> Header:
    try:
        require_plain_entry(entry)
        with archive.open(entry) as file:
            header, start = read_header(file, entry.file_size)
        require_length(header, entry.file_size - start)
    except ValueError as error:
        raise ValueError(f"{printable(key)}: {error}") from error
    return header


def image_keys(headers: Mapping[str, Header]) -> list[str]:
    """The keys of images; of bytes rather than floats, of four axes rather than three."""
    for axes in (4, 3):
        for kind in ("u", "f"):
            found = [k for k, h in headers.items() if h.dtype.kind == kind and _fits(h, axes)]
            if found:
                return found
    return []


def _fits(header: Header, axes: int) -> bool:
    shape = header.shape
    if len(shape) != axes or 0 in shape or (header.dtype.kind == "u" and header.dtype != np.uint8):
        return False
    if axes == 3:
        return shape[2] not in CHANNELS  # else it is one image
    return shape[3] in CHANNELS or shape[1] in CHANNELS


def _by_split(keys: list[str]) -> dict[str, str]:
    """Keys by the split that each names, in the usual order; those that name none are left out."""
    found = {match[1]: key for key in keys if (match := SPLIT.search(key.lower()))}
    return {split: found[split] for split in SPLITS if split in found}


def _labels(headers: Mapping[str, Header], images: Mapping[str, str]) -> dict[str, str]:
    """Keys of whole numbers [n] or [n, 1], one for each image; all splits have them, or none."""
    found = {}
    for split, key in images.items():
        n = headers[key].shape[0]
        fitting = [
            name
            for name, header in headers.items()
            if header.dtype.kind in "iu" and header.shape in ((n,), (n, 1)) and name != key
            and (split == ALL or ((match := SPLIT.search(name.lower())) and match[1] == split))
        ]  # fmt: skip
        if len(fitting) == 1:
            found[split] = fitting[0]
    return found if len(found) == len(images) else {}


def _form(key: str, array: NDArray[Any], darkest: float) -> Form:
    """Tells layout and range of an array, from all of it and the darkest value of all splits.

    Raises:
        ValueError: If its layout could be two, or its floats lie in neither range.
    """
    shown = printable(key) or "the array"
    layout = _layout(shown, array.shape)
    channels = {"nhwc": array.shape[-1], "nchw": array.shape[1], "nhw": 1}[layout]
    told = ["channels come first"] if layout == "nchw" else []
    low = None
    if array.dtype.kind == "f":
        least, most = float(array.min()), float(array.max())
        if not -1 - NEARLY <= least <= most <= 1 + NEARLY:
            raise ValueError(
                f"{shown} holds floats from {least:g} to {most:g}; images must lie in [0, 1] or "
                "[-1, 1], or be uint8"
            )
        low = -1 if darkest < -NEARLY else 0
        told.append(f"{array.dtype} in [{low}, 1] read as 0..255, rounded to the nearest")
    return Form(layout, low, channels, f"{shown}: {', '.join(told)}" if told else "")


def _layout(shown: str, shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return "nhw"
    possible = {  # how plausible each is: grey and RGB before RGBA, squares before strips
        layout: (channels in (1, 3), height == width)
        for layout, channels, height, width in (
            ("nhwc", shape[3], shape[1], shape[2]),
            ("nchw", shape[1], shape[2], shape[3]),
        )
        if channels in CHANNELS
    }
    best = [layout for layout, value in possible.items() if value == max(possible.values())]
    if len(best) > 1:
        raise ValueError(
            f"{shown} has the shape {list(shape)}, which could have its channels first or last; "
            "they must be told apart"
        )
    return best[0]
