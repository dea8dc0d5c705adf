"""Images in, features out; the same for generated shards and for the reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ddim_core.common.versions import network_versions
from ddim_core.diffusion.specs import Execution
from ddim_core.features.extractor import FeatureRecord
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class FeatureShard(ArtifactRef):
    """Features float32 [n, d], and what makes them what they are.

    Attributes:
        record: Of the features.
        size: Height x width of the images.
        versions: Of the libraries.
    """

    n: int
    d: int
    record: FeatureRecord
    size: str
    versions: dict[str, str]


@cached_task
def embed_images(
    images: ArtifactRef, extractor: ArtifactRef, execution: Execution, arithmetic: str = ""
) -> FeatureShard:
    """Extracts features.

    Args:
        images, extractor: What of, and by what.
        execution: How.
        arithmetic: Of float32 on a card, `tf32` or `float32`; empty on a CPU.
    """
    torch.set_num_threads(execution.threads)
    pixels = store.get_arrays(images)["images"]
    with card(execution.device, arithmetic or "float32") as device:
        network = extractor_in_memory(extractor, pixels.shape[1:], device, arithmetic)
        features = network(pixels)
    n_images, n_features = features.shape
    return FeatureShard(
        **vars(store.put_arrays({"features": features}, "features")),
        n=n_images,
        d=n_features,
        record=network.record,
        size=f"{pixels.shape[1]}x{pixels.shape[2]}",
        versions=network_versions() | ({"float32 of features": arithmetic} if arithmetic else {}),
    )
