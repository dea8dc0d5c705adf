"""A cell of the table by its digest, and its images."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.row import CellRow
from tasks.storage import store
from tasks.storage.cell_rows import CELLS
from tasks.storage.store import ArtifactRef

CELL = re.compile(r"[0-9a-f]{4,64}")
WHOLE = re.compile(r"[0-9a-f]{64}")


def looks_like_cell(text: str) -> bool:
    """Tells whether a text could be a cell's digest, or its beginning (four digits or more)."""
    return CELL.fullmatch(text) is not None


def find_cell(prefix: str) -> CellRow:
    """Returns the row of the one cell whose digest begins so.

    Raises:
        ValueError: If there is none, or more than one.
        DamagedRowError: If its file is damaged.
    """
    digests = [n for n in CELLS.names() if n.startswith(prefix) and WHOLE.fullmatch(n)]
    if len(digests) != 1:
        found = f"{len(digests)} cells begin so" if digests else "no cell of the table begins so"
        raise ValueError(
            f"{prefix!r} is no cell: {found}; give a cell_digest of `ddim table --json`, or a "
            "beginning that is its own"
        )
    return CELLS.read(digests).whole().rows[0]


def is_verified(row: CellRow) -> bool:
    """Tells whether a cell's row has a seal; others may say anything, though not of the images,
    which are named by their content."""
    return CELLS.row(row.cell_digest)[1]


def first_images(row: CellRow, most: int) -> NDArray[np.uint8]:
    """Returns the first images of a cell's first shard, uint8 [n, h, w, c].

    Raises:
        ValueError, StoreError: As `cell_shards`.
    """
    return cell_shards(row, 1)[0][:most]


def real_images(row: CellRow) -> NDArray[np.uint8] | None:
    """Returns the real images that a cell was compared with, uint8 [n, h, w, c]; None where only
    their statistics were known, or where they are no longer in the store.

    Raises:
        StoreError: If an object store does not answer.
    """
    try:
        return store.get_arrays(ArtifactRef(row.reference_digest, "images")).get("images")
    except store.DamagedArtifactError:
        return None


def cell_shards(row: CellRow, most: int | None = None) -> list[NDArray[np.uint8]]:
    """Returns a cell's images uint8 [n, h, w, c], shard by shard in order of image index; of so
    many first shards, or of all.

    Raises:
        ValueError: If the row does not say which they are.
        StoreError: If they are no longer in the store.
    """
    if not row.image_shards:
        raise ValueError(
            f"the row {row.cell_digest[:12]} does not say where its images are; run its grid "
            "again, and it will"
        )
    refs = [ArtifactRef(artifact=digest, kind="shard") for digest in row.image_shards[:most]]
    return [store.get_arrays(ref)["images"] for ref in refs]
