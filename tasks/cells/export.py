"""A cell's images as files for other programs."""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from ddim_core.common.plain_files import require_makeable
from ddim_core.images.image_set import ImageSet
from ddim_core.images.image_table import write_parquet
from tasks.cells.lookup import cell_shards, find_cell


def export_cell(prefix: str, out: Path) -> int:
    """Writes a cell's images, bit for bit, named by image index.

    A name that ends in .parquet becomes one Parquet file with a column `image`, in order of image
    index, which `datasets.load_dataset("parquet", data_files=...)` opens; any other a folder of
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
    if not os.path.lexists(out):
        require_makeable(out, "the place to export to")
    if out.exists() and (out.is_file() if out.suffix != ".parquet" else out.is_dir()):
        raise ValueError(f"{str(out)!r} is in the way; give a new folder or a .parquet file")
    if out.suffix == ".parquet":
        out.parent.mkdir(parents=True, exist_ok=True)
        label = f"cell {row.cell_digest[:12]}"
        write_parquet(ImageSet(np.concatenate(shards), None, label, "generated"), str(out))
        return n_images
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"the folder {str(out)!r} holds something; give a new or an empty one")
    out.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(chain.from_iterable(shards)):
        picture = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
        Image.fromarray(picture).save(out / f"{index:06d}.png")
    return n_images
