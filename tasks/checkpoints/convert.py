"""Somebody's checkpoint files in, a checkpoint of the one layout in the store out."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ddim_core.checkpoints.convert import adopt, source_digest, source_files
from ddim_core.diffusion.specs import Weights
from ddim_core.networks.building import LOADING
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def convert_checkpoint(source: str, weights: Weights, location: str) -> ArtifactRef:
    """Brings a checkpoint into the diffusers layout; returns a reference to its folder.

    Cached on the digest of the source's files, wherever they lie.
    """
    files = source_files(Path(location))
    with tempfile.TemporaryDirectory() as folder, LOADING:
        out = Path(folder, Path(location).name or "checkpoint")  # messages name it
        out.mkdir()
        adopt(files, out, weights)
        if source_digest(files) != source:
            raise ValueError(f"the files of {location!r} changed while they were read; try again")
        return store.put_folder(out)
