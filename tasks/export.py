"""A cell's images as files for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.cells import cell_shards, find_cell


def export_cell(prefix: str, out: Path) -> int:
    """Writes a cell's images, bit for bit, named by image index.

    A name that ends in .parquet becomes one Parquet file with a column `image` and the column
    `index`, which `datasets.load_dataset("parquet", data_files=...)` opens; any other a folder of
    PNG files, which pytorch-fid, torch-fidelity and clean-fid read.

    Args:
        prefix: The cell's digest, or a beginning of it.
        out: The file or folder; the folder must be empty or not there.

    Returns:
        How many images.

    Raises:
        ValueError: If there is no such cell, or the folder holds something.
    """
    row = find_cell(prefix)
    shards = cell_shards(row)
    n_images = sum(len(shard) for shard in shards)
    if out.exists() and (out.is_file() if out.suffix != ".parquet" else out.is_dir()):
        raise ValueError(f"{str(out)!r} is in the way; give a new folder or a .parquet file")
    if out.suffix == ".parquet":
        _write_parquet(shards, out)
        return n_images
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"the folder {str(out)!r} holds something; give a new or an empty one")
    out.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(_images(shards)):
        image.save(out / f"{index:06d}.png")
    return n_images


def _images(shards: list[NDArray[np.uint8]]) -> Iterator[Image.Image]:
    for shard in shards:
        for pixels in shard:
            yield Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _write_parquet(shards: list[NDArray[np.uint8]], out: Path) -> None:
    from datasets import Dataset, Features, Value, disable_progress_bars  # slow to import
    from datasets import Image as ImageColumn

    disable_progress_bars()

    images = list(_images(shards))
    columns = Features({"index": Value("int64"), "image": ImageColumn()})
    table = Dataset.from_dict({"index": range(len(images)), "image": images}, features=columns)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(out)
