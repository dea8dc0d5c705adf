"""Images in, features out; the same for generated shards and for the reference."""

from __future__ import annotations

from typing import Any

import torch

from ddim_core.specs import Execution
from tasks import store
from tasks.caching import cached_task
from tasks.feature_models import extractor_in_memory
from tasks.store import ArtifactRef


@cached_task
def embed_images(
    images: ArtifactRef, extractor: ArtifactRef, execution: Execution
) -> dict[str, Any]:
    """Extracts features; returns a reference to float32 [n, d]."""
    torch.set_num_threads(execution.threads)
    pixels = store.get_arrays(images)["images"]
    features = extractor_in_memory(extractor, pixels.shape[1:])(pixels)
    n_images, n_features = features.shape
    return {**store.put_arrays({"features": features}, "features"), "n": n_images, "d": n_features}
