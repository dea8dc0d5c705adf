"""Images in NumPy's files: `.npy`, and `.npz` under any key, as ADM, EDM and MedMNIST have them."""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import open_regular
from ddim_core.common.printable import printable
from ddim_core.images.sources.decode import netpbm
from ddim_core.images.sources.source import ALL, Row, named

ARRAYS = (".npz", ".npy")
CHANNELS = (1, 3, 4)
SPLITS = ("train", "val", "validation", "test")
SPLIT = re.compile(r"(?:^|[_.-])(train|val|validation|test)(?:[_.-]|$)")
NEARLY = 1e-3  # what rounding may add to a range; an eighth of a grey level
LEAST_LIMIT, MOST_UNPACKED = 2**25, 100  # bytes, and times the packed length
MOST_BYTES = 2**36
MOST_CLASSES = 10_000


@dataclass(frozen=True)
class Header:
    """What an array says of itself before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


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
        return {split: _form(key, self._arrays[key]) for split, key in self.images.items()}


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
                header, start = _header_of(file)
                _require_length("it", header, file.seek(0, io.SEEK_END) - start)
                return {"": header}
            found = {}
            with zipfile.ZipFile(file) as archive:
                for info in archive.infolist():
                    if info.filename.endswith(".npy"):
                        key = info.filename.removesuffix(".npy")
                        found[key] = _entry_header(archive, info, key)
            return found
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError,
            SyntaxError, TypeError, OverflowError) as error:  # fmt: skip
        raise _damaged(path, error) from error


def read_arrays(path: Path, keys: list[str]) -> dict[str, NDArray[Any]]:
    """Reads arrays that `array_headers` knows; nothing pickled is read.

    Raises:
        ValueError: If one is damaged.
    """
    try:
        if path.suffix.lower() == ".npy":
            whole = np.lib.format.open_memmap(path, mode="r")
            return {"": whole}
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    kind = path.suffix.lower()
    return ValueError(f"{printable(path.name)} is no {kind} of plain arrays: {reason}")


def _entry_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, key: str) -> Header:
    with archive.open(info) as entry:
        header, start = _header_of(entry)
    if info.file_size > min(MOST_BYTES, max(LEAST_LIMIT, MOST_UNPACKED * info.compress_size)):
        raise ValueError(
            f"{printable(key)} unpacks to {info.file_size} bytes from {info.compress_size}; that "
            "is too many"
        )
    _require_length(printable(key), header, info.file_size - start)
    return header


def _header_of(file: IO[bytes]) -> tuple[Header, int]:
    """The header of an array, and where its values begin."""
    version = np.lib.format.read_magic(file)
    first = version == (1, 0)
    read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return Header(tuple(int(n) for n in shape), dtype), file.tell()


def _require_length(key: str, header: Header, there: int) -> None:
    claimed = math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or (not header.dtype.hasobject and claimed > there):
        raise ValueError(
            f"{key} claims {claimed} bytes ({header.dtype} {list(header.shape)}); there are {there}"
        )


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


def _form(key: str, array: NDArray[Any]) -> Form:
    """Tells layout and range of an array, from all of it.

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
        low = -1 if least < -NEARLY else 0
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
