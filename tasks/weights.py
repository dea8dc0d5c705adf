"""Checkpoints known by their weights: one content is stored once, and scored grids are remembered.

A checkpoint that was saved again has other bytes and the same content. It is taken for the one
that is stored already, so all that was drawn from that one is found in the cache.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import fsspec

from ddim_core.weights import weights_digest
from tasks import places, store
from tasks.store import ArtifactRef

NAME = "checkpoint"
CELLS = "cells"


def put_checkpoint(folder: Path) -> ArtifactRef:
    """Stores a checkpoint's folder, or returns the stored one that has the same content."""
    weights = weights_digest(folder)
    known = store.bound(f"weights/{weights}").get(NAME)
    if known is not None:
        return known
    ref = store.put_folder(folder)
    store.bind(f"weights/{weights}/{NAME}", ref)
    return ref


def weights_of(ref: ArtifactRef) -> str:
    """Returns the content digest of a stored checkpoint (`ddim_core.weights`)."""
    return _weights_of(ref["artifact"])


@lru_cache(maxsize=64)
def _weights_of(artifact: str) -> str:
    return weights_digest(store.get_folder(ArtifactRef(artifact=artifact, kind="folder")))


def mark_scored(grid: str, weights: str, cells: list[str]) -> None:
    """Remembers that every cell of a grid has its row for a checkpoint."""
    ref = store.put(json.dumps(sorted(cells)).encode(), CELLS)
    store.bind(f"scored/{grid}/{weights}/{CELLS}", ref)


def is_scored(grid: str, weights: str) -> bool:
    """Tells whether a grid was finished for a checkpoint, and its rows are still there."""
    ref = store.bound(f"scored/{grid}/{weights}").get(CELLS)
    if ref is None:
        return False
    filesystem, folder = fsspec.core.url_to_fs(places.data_url("results", "cells"))
    cells = json.loads(store.get(ref))
    return all(filesystem.exists(f"{folder}/{cell}.parquet") for cell in cells)
