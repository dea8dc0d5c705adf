"""Images one by one at their native size, from whatever people keep them in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ddim_core.images import ALL, SPLIT_NAMES, load_images, opened, squared

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)  # as pytorch-fid
ROWS_AT_ONCE = 64
ARROW_FILES = ("state.json", "dataset_dict.json")  # what datasets' save_to_disk writes


def native_images(
    place: str, split: str = ALL, resolution: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Yields the images of a set in a fixed order, each uint8 [h, w, 1 or 3] of its own size.

    A set is `digits`; a folder of images, in sub-folders or not (sorted by path); a Parquet or
    Arrow file with one column of images, as Hugging Face data sets have it; a folder of Parquet
    files; or a folder that `Dataset.save_to_disk` wrote. Grey images have one channel, all others
    become RGB. Nothing else is held in memory.

    Args:
        place: The set.
        split: A part of it: a sub-folder `train`, `val`, `validation` or `test`, a Parquet file
            whose name begins with it, or a split of a saved data set; `all` takes everything.
        resolution: Resize the short side to so many pixels and crop the centre, as a data set is
            prepared for a model of this size; None keeps the native size.

    Raises:
        ValueError: If there is no such set or split, it is empty, or an image cannot be read.
    """
    if resolution is not None and resolution < 1:
        raise ValueError(f"resolution is {resolution}; it must be at least 1")
    if place == "digits":
        yield from load_images("digits", split, resolution).images
        return
    path = Path(place)
    if not path.exists():
        raise ValueError(
            f"there is no {place!r}; a set of images is a folder, a .parquet or .arrow file, or "
            "digits"
        )
    n_images = 0
    for image in _opened(path, split):
        n_images += 1
        mode = image.convert("L" if image.mode in ("L", "1") else "RGB")
        pixels = np.asarray(squared(mode, resolution), dtype=np.uint8)
        yield pixels if pixels.ndim == 3 else pixels[:, :, None]
    if n_images == 0:
        raise ValueError(f"{place!r} holds no image; there must be at least one")


def _opened(path: Path, split: str) -> Iterator[Image.Image]:
    if any((path / name).is_file() for name in ARROW_FILES):
        return _of_tables(_saved(path, split), path.name)
    if path.is_dir():
        files = sorted(path.rglob("*.parquet"))
        chosen = [f for f in files if split == ALL or f.name.startswith(split)]
        if files and not chosen:
            raise ValueError(f"{path.name} has no split {split!r} among its Parquet files")
        return _of_tables(_parquet(chosen), path.name) if files else _of_folder(path, split)
    if split not in (ALL, path.stem):
        raise ValueError(f"{path.name} has no split {split!r}; it is one file")
    if path.suffix == ".parquet":
        return _of_tables(_parquet([path]), path.name)
    if path.suffix == ".arrow":
        return _of_tables(_arrow(path), path.name)
    raise ValueError(f"{path.name} is no set of images; it must be a .parquet or .arrow file")


def _of_folder(folder: Path, split: str) -> Iterator[Image.Image]:
    root = folder if split == ALL else folder / split
    if not root.is_dir() or (split != ALL and split not in SPLIT_NAMES):
        raise ValueError(f"{folder.name} has no split {split!r}; it must be one of its folders")
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES):
        yield opened(path.read_bytes(), str(path))


def _parquet(files: list[Path]) -> Iterator[pa.Table]:
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                column = _image_column(file.schema_arrow, path.name)
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=[column]):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path.name} cannot be read as Parquet: {error}") from error


def _arrow(path: Path) -> Iterator[pa.Table]:
    """Reads a file of Arrow's stream form, as `datasets` writes them, or of its file form."""
    try:
        with pa.memory_map(str(path)) as source:
            try:
                batches: Any = pa.ipc.open_stream(source)
            except pa.ArrowInvalid:
                reader = pa.ipc.open_file(source)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            for batch in batches:
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as Arrow: {error}") from error


def _saved(folder: Path, split: str) -> Iterator[pa.Table]:
    from datasets import DatasetDict, load_from_disk  # slow to import

    found = load_from_disk(str(folder))
    parts = dict(found) if isinstance(found, DatasetDict) else {ALL: found}
    if split != ALL and split not in parts:
        raise ValueError(f"{folder.name} has no split {split!r}; it has {', '.join(parts)}")
    for part in parts.values() if split == ALL else [parts[split]]:
        yield from part.with_format("arrow").iter(ROWS_AT_ONCE)


def _of_tables(tables: Iterator[pa.Table], name: str) -> Iterator[Image.Image]:
    row = 0
    for table in tables:
        for cell in table.column(_image_column(table.schema, name)).to_pylist():
            data = cell["bytes"] if isinstance(cell, dict) else cell
            if data is None:
                raise ValueError(f"row {row} of {name} holds no image bytes; every row must")
            yield opened(data, f"row {row} of {name}")
            row += 1


def _image_column(schema: pa.Schema, name: str) -> str:
    """The one column of structs with `bytes`, or else the one of plain bytes."""
    structs = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    plain = [
        field.name
        for field in schema
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    ]
    columns = structs or plain
    if len(columns) != 1:
        raise ValueError(
            f"{name} has {len(columns)} image columns among {', '.join(schema.names)}; it must "
            "have one, of structs with the field bytes, or of bytes"
        )
    return columns[0]
