"""Checkpoints known by their weights: one content is stored once, and scored grids are remembered.

A checkpoint that was saved again has other bytes and the same content. It is taken for the one
that is stored already, so all that was drawn from that one is found in the cache.
"""

from __future__ import annotations

import json
from functools import lru_cache

from ddim_core.checkpoints.identity import weights_digest
from tasks.storage import store
from tasks.storage.cell_rows import CELLS as ROWS
from tasks.storage.row_files import DamagedRowError
from tasks.storage.store import ArtifactRef

NAME = "checkpoint"
CELLS = "cells"


def first_of_content(ref: ArtifactRef) -> ArtifactRef:
    """Returns the stored checkpoint that was the first of this one's content: itself, or one saved
    otherwise, whose images then need not be drawn again."""
    weights = weights_of(ref)
    known = store.bound(f"weights/{weights}", ArtifactRef).get(NAME)
    if known is not None:
        return known
    store.bind(f"weights/{weights}/{NAME}", ArtifactRef(ref.artifact, ref.kind))
    return ref


def weights_of(ref: ArtifactRef) -> str:
    """Returns the content digest of a stored checkpoint (`ddim_core.checkpoints.identity`)."""
    return _weights_of(ref.artifact)


@lru_cache(maxsize=64)
def _weights_of(artifact: str) -> str:
    return weights_digest(store.get_folder(ArtifactRef(artifact=artifact, kind="folder")))


def mark_scored(grid: str, weights: str, cells: list[str]) -> None:
    """Remembers that every cell of a grid has its row for a checkpoint."""
    ref = store.put(json.dumps(sorted(cells)).encode(), CELLS)
    store.bind(f"scored/{grid}/{weights}/{CELLS}", ref)


def is_scored(grid: str, weights: str) -> bool:
    """Tells whether a grid was finished for a checkpoint, and all its rows are sound."""
    ref = store.bound(f"scored/{grid}/{weights}", ArtifactRef).get(CELLS)
    if ref is None:
        return False
    return all(_has_row(cell) for cell in json.loads(store.get(ref)))


def _has_row(cell: str) -> bool:
    try:
        ROWS.row(cell)
    except DamagedRowError:
        return False
    return True
