"""Images in, features out; the same for generated shards and for the reference."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from ddim_core.common.versions import network_versions
from ddim_core.diffusion.specs import Execution
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def embed_images(
    images: ArtifactRef, extractor: ArtifactRef, execution: Execution
) -> dict[str, Any]:
    """Extracts features; returns a reference to float32 [n, d], and what makes them what they are:
    the `record` of the features, the native `size` of the images, `versions` of the libraries.
    """
    torch.set_num_threads(execution.threads)
    pixels = store.get_arrays(images)["images"]
    network = extractor_in_memory(extractor, pixels.shape[1:])
    features = network(pixels)
    n_images, n_features = features.shape
    return {
        **store.put_arrays({"features": features}, "features"),
        "n": n_images,
        "d": n_features,
        "record": asdict(network.record),
        "size": f"{pixels.shape[1]}x{pixels.shape[2]}",
        "versions": network_versions(),
    }
