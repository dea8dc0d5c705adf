"""Models in memory: read once per process, one at a time.

Loading is the one moment that is not safe between threads (libraries change global defaults
while they build a network); running a loaded network is.
"""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

import torch

from ddim_core.checkpoint import Checkpoint, load_checkpoint
from ddim_core.classifier import ClassifierFeatures
from ddim_core.digest import file_digest
from ddim_core.features import FeatureExtractor, PixelFeatures
from ddim_core.inception import InceptionFeatures
from tasks import store
from tasks.places import local_dir
from tasks.store import ArtifactRef

_loading = Lock()


def checkpoint_in_memory(
    ref: ArtifactRef, device: str = "cpu", dtype: str = "float32"
) -> Checkpoint:
    """Returns a stored checkpoint, ready to sample from."""
    with _loading:
        return _checkpoint(ref["artifact"], device, dtype)


def require_device(name: str) -> None:
    """Makes sure that a torch device is there.

    Raises:
        ValueError: If it is not.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {name!r}, which is not here; try cpu or cuda") from error


def extractor_in_memory(ref: ArtifactRef, image_shape: tuple[int, ...]) -> FeatureExtractor:
    """Returns a stored extractor for images of shape [h, w, c]."""
    if ref["kind"] == "pixels":
        return PixelFeatures(*image_shape)
    with _loading:
        load = _inception if ref["kind"] == "inception-v3" else _classifier
        return load(ref["artifact"])


@lru_cache(maxsize=1)
def _checkpoint(digest: str, device: str, dtype: str) -> Checkpoint:
    folder = store.get_folder(ArtifactRef(artifact=digest, kind="folder"))
    loaded = load_checkpoint(folder, device)
    if dtype != "float32":
        loaded.model.unet.to(dtype=getattr(torch, dtype))
    return loaded


@lru_cache(maxsize=1)
def _inception(digest: str) -> FeatureExtractor:
    path = local_dir("work", f"inception-{digest[:16]}.pth")
    if not path.is_file() or file_digest(path) != digest:
        weights = store.get(ArtifactRef(artifact=digest, kind="inception-v3"))
        store.write_whole(str(path), weights)
    return InceptionFeatures(str(path))


@lru_cache(maxsize=1)
def _classifier(digest: str) -> FeatureExtractor:
    return ClassifierFeatures.from_bytes(store.get(ArtifactRef(artifact=digest, kind="classifier")))
