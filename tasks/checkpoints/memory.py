"""Checkpoints in memory: read once per process."""

from __future__ import annotations

from functools import lru_cache

import torch

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ddim_core.networks.building import LOADING
from tasks.storage import store
from tasks.storage.store import ArtifactRef


def checkpoint_in_memory(
    ref: ArtifactRef, device: str = "cpu", dtype: str = "float32"
) -> Checkpoint:
    """Returns a stored checkpoint, ready to sample from."""
    with LOADING:
        return _checkpoint(ref.artifact, device, dtype)


@lru_cache(maxsize=1)
def _checkpoint(digest: str, device: str, dtype: str) -> Checkpoint:
    folder = store.get_folder(ArtifactRef(artifact=digest, kind="folder"))
    loaded = load_checkpoint(folder, device)
    if dtype != "float32":
        loaded.model.unet.to(dtype=getattr(torch, dtype))
    return loaded
