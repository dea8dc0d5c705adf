"""Real images in: data sets by name or place, resized once."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

DIGITS_TEST_COUNT = 500
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
SPLIT_NAMES = frozenset({"train", "val", "validation", "test"})
ALL = "all"
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in memory.

    Attributes:
        images: uint8 [n, height, width, channels], channels 1 or 3.
        labels: int64 [n], or None where the data has no classes.
        name: The data set's name for people, never a path.
        split: Which part of it.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    name: str
    split: str

    def __len__(self) -> int:
        return len(self.images)


def load_images(dataset: str, split: str = ALL, resolution: int | None = None) -> ImageSet:
    """Loads one split of a data set, resized once and cropped to a square.

    `digits` are scikit-learn's 1,797 real 8x8 handwritten digits; its splits are `train` (1,297),
    `test` (500, drawn at random once and for all) and `all`. Everything else is a local place:

    - a folder of PNG or JPEG files, flat or with a folder per class (sorted names give 0, 1, ...);
      where it has folders `train`, `val`, `validation` or `test`, these are its splits (the
      layout of AFHQ), else its only split is `all`. Other files are not looked at;
    - a `.parquet` file in the form of Hugging Face data sets: one column of structs with `bytes`,
      and `label` if there are classes; its splits are `all` and its own stem.

    Such images become RGB, the short side is resized to `resolution` (Pillow bicubic, with
    antialiasing, on the native image) and the centre is cropped.

    Args:
        dataset: `digits`, a folder or a Parquet file.
        split: Which part.
        resolution: Height and width in pixels; None keeps the native size, which must be one.

    Raises:
        ValueError: If the data set or the split is unknown, if an image cannot be read, or if
            native sizes differ and no resolution is given.
    """
    if resolution is not None and resolution < 1:
        raise ValueError(f"resolution is {resolution}; it must be at least 1")
    if dataset == "digits":
        return _digits(split, resolution)
    path = Path(dataset)
    if path.is_dir():
        return _from_folder(path, split, resolution)
    if path.is_file() and path.suffix == ".parquet":
        return _from_parquet(path, split, resolution)
    raise ValueError(
        f"there is no data set {dataset!r}; it must be digits, a folder of PNG or JPEG files, or "
        "a .parquet file with an image column"
    )


def splits_of(dataset: str) -> list[str]:
    """Returns the splits that `load_images` knows of a data set.

    Raises:
        ValueError: If the data set is unknown.
    """
    if dataset == "digits":
        return [ALL, "train", "test"]
    path = Path(dataset)
    if path.is_dir():
        folders = (p.name for p in path.iterdir() if p.is_dir())
        return [ALL, *sorted(SPLIT_NAMES.intersection(folders))]
    if path.is_file() and path.suffix == ".parquet":
        return [ALL, path.stem]
    raise ValueError(
        f"there is no data set {dataset!r}; it must be digits, a folder of PNG or JPEG files, or "
        "a .parquet file with an image column"
    )


def _digits(split: str, resolution: int | None) -> ImageSet:
    from sklearn.datasets import load_digits  # slow to import, and needed for this set only

    if resolution not in (None, 8):
        raise ValueError(f"resolution is {resolution}; digits are 8x8, so it must be 8 or None")
    raw, labels = load_digits(return_X_y=True)
    # A random order, since the digits come writer by writer. RandomState because NumPy promises
    # never to change its stream.
    order = np.random.RandomState(0).permutation(len(labels))
    rows = {ALL: order, "test": order[:DIGITS_TEST_COUNT], "train": order[DIGITS_TEST_COUNT:]}
    if split not in rows:
        raise ValueError(f"digits have no split {split!r}; they have {', '.join(rows)}")
    pixels = np.rint(raw.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).astype(np.uint8)
    chosen = rows[split]
    return ImageSet(pixels[chosen], labels[chosen].astype(np.int64), "digits", split)


def _from_folder(folder: Path, split: str, resolution: int | None) -> ImageSet:
    splits = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name in SPLIT_NAMES)
    if split != ALL and split not in splits:
        there_is = ", ".join([ALL, *splits])
        raise ValueError(f"{folder.name} has no split {split!r}; it has {there_is}")
    root = folder if split == ALL else folder / split
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ValueError(f"{root.name} holds no PNG or JPEG file; there must be at least one")
    images = [_prepared(p.read_bytes(), str(p), resolution) for p in paths]
    return ImageSet(_stacked(images), _labels_of_folders(paths, folder), folder.name, split)


def _labels_of_folders(paths: list[Path], folder: Path) -> NDArray[np.int64] | None:
    classes = []
    for path in paths:
        parents = path.relative_to(folder).parts[:-1]
        if parents and parents[0] in SPLIT_NAMES:
            parents = parents[1:]
        if not parents:
            return None
        classes.append(parents[-1])
    index = {name: i for i, name in enumerate(sorted(set(classes)))}
    return np.array([index[name] for name in classes], dtype=np.int64)


def _from_parquet(path: Path, split: str, resolution: int | None) -> ImageSet:
    import pyarrow as pa  # needed for this form only
    import pyarrow.parquet as pq

    if split not in (ALL, path.stem):
        raise ValueError(f"{path.name} has no split {split!r}; it has {ALL}, {path.stem}")
    table = pq.read_table(path)
    columns = [
        field.name
        for field in table.schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    if len(columns) != 1:
        raise ValueError(
            f"{path.name} has {len(columns)} image columns among {', '.join(table.column_names)}; "
            "it must have one, of structs with the field bytes"
        )
    images = []
    for row, cell in enumerate(table.column(columns[0]).to_pylist()):
        where = f"row {row} of {path.name}"
        if cell is None or cell["bytes"] is None:
            raise ValueError(f"{where} holds no image bytes; every row must")
        images.append(_prepared(cell["bytes"], where, resolution))
    labels = None
    if "label" in table.column_names:
        labels = table.column("label").to_numpy().astype(np.int64)
    return ImageSet(_stacked(images), labels, path.stem, split)


def opened(data: bytes, where: str) -> Image.Image:
    """Decodes one image, turned as its camera says.

    Raises:
        ValueError: If it cannot be read or has more than 8 bits; `where` names it.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode in DEEP_MODES:
                raise ValueError(f"{where} has mode {image.mode}; images must have 8 bits")
            image.load()
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{where} cannot be read as an image: {error}") from error


def squared(image: Image.Image, resolution: int | None) -> Image.Image:
    """Resizes the short side (Pillow bicubic, antialiased) and crops the centre; None: as it is."""
    if resolution is None or image.size == (resolution, resolution):
        return image
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + resolution, top + resolution))


def _prepared(data: bytes, where: str, resolution: int | None) -> NDArray[np.uint8]:
    image = squared(opened(data, where).convert("RGB"), resolution)
    return np.asarray(image, dtype=np.uint8)


def _stacked(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    shapes = {image.shape[:2] for image in images}
    if len(shapes) > 1:
        raise ValueError(
            f"images have {len(shapes)} sizes, among them {sorted(shapes)[:3]}; give a resolution"
        )
    return np.stack(images)
