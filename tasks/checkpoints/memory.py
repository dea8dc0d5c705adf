"""Checkpoints in memory: read once per process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ddim_core.devices.arithmetic import network_dtype
from ddim_core.diffusion.specs import OnCard
from ddim_core.networks.building import LOADING
from tasks.storage import store
from tasks.storage.store import ArtifactRef


def checkpoint_in_memory(
    ref: ArtifactRef, device: str = "cpu", dtype: str = "float32", card: OnCard | None = None
) -> Checkpoint:
    """Returns a stored checkpoint, ready to sample from; of each device the latest is kept.

    Args:
        ref: The checkpoint.
        device: Where its networks go.
        dtype: Of a cell.
        card: How a card runs them; None as a CPU does.
    """
    with LOADING:
        return _memory_of(device)(ref.artifact, device, dtype, card is not None, compiles(card))


def guide_in_memory(
    ref: ArtifactRef, device: str = "cpu", dtype: str = "float32", card: OnCard | None = None
) -> Checkpoint:
    """Returns a stored checkpoint that guides another, as `checkpoint_in_memory` that other; of
    each device the latest is kept beside it."""
    with LOADING:
        known = _memory_of(device, "guide")
        return known(ref.artifact, device, dtype, card is not None, compiles(card))


def compiles(card: OnCard | None) -> bool:
    """Tells whether a cell's networks run compiled."""
    return card is not None and card.compiled


@cache
def _memory_of(device: str, _of: str = "led") -> Callable[[str, str, str, bool, bool], Checkpoint]:
    """The memory of one device: of several cards, each holds a network of its own, and a guide."""
    return lru_cache(maxsize=1)(_opened)


def forget() -> None:
    """Lets go of all checkpoints in memory."""
    _memory_of.cache_clear()


def _opened(digest: str, device: str, dtype: str, on_card: bool, by_compiler: bool) -> Checkpoint:
    folder = store.get_folder(ArtifactRef(artifact=digest, kind="folder"))
    loaded = load_checkpoint(folder, device, on_card, by_compiler)
    if network_dtype(dtype) != torch.float32:
        loaded.model.unet.to(dtype=network_dtype(dtype))
        if on_card and loaded.latent is not None:
            loaded.latent.decoder.to(dtype=network_dtype(dtype))
    return loaded
