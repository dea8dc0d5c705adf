"""A grid's reference of which only statistics are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddim_core.common.versions import network_versions
from ddim_core.scores.set_score import FeatureSet
from ddim_core.statistics.npz import Statistics
from ddim_core.statistics.reference_files import statistics_for
from tasks.cells.embed import FeatureShard
from tasks.cells.extractor import StoredExtractor
from tasks.cells.extractor_memory import extractor_in_memory, record_of
from tasks.images.prepare import PreparedImages, content_of
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

STATISTICS = "statistics"  # the kind of these artefacts
UNKNOWN = "unknown"


@dataclass(frozen=True)
class KnownReference:
    """What stands for a reference's images and for their features: the same artefact."""

    images: PreparedImages
    features: FeatureShard


@cached_task
def known_reference(
    content: str, location: str, extractor: StoredExtractor, resolution: int, channels: int
) -> KnownReference:
    """Stores a file of statistics as the reference of a checkpoint's cells.

    Args:
        content: Of the file, wherever it lies.
        location: Where it lies.
        extractor: What it has to be of.
        resolution, channels: Of the generated images.

    Raises:
        ValueError: If it has no statistics for this extractor, or of another number of features.
    """
    found = statistics_for(Path(location), extractor.name)
    if found is None or content_of(location) != content:
        raise ValueError(f"{Path(location).name} has no statistics of {extractor.name} any more")
    record = record_of(extractor)
    dim = extractor_in_memory(extractor, ()).dim
    if found.record is not None and found.record != record:
        raise ValueError(
            f"{Path(location).name} says it is of {found.record.extractor} with resize "
            f"{found.record.resize}, which the grid's {record.extractor} with {record.resize}, or "
            "its weights, are not"
        )
    if found.mu.size != dim:
        raise ValueError(
            f"{Path(location).name} has {found.mu.size} features and {extractor.name} {dim}; it is "
            "of another extractor"
        )
    arrays = {"mu": found.mu, "sigma": found.sigma, "count": np.array([found.count or 0])}
    stored = store.put_arrays(arrays, STATISTICS)
    ref = ArtifactRef(artifact=stored.artifact, kind=stored.kind)
    n = found.count or 0
    about = f"the reference is known by its statistics alone ({Path(location).name})"
    images = PreparedImages(
        ref.artifact, ref.kind, n=n, resolution=resolution, channels=channels, n_classes=None,
        resize=UNKNOWN, fingerprint=content, licence=None, broken=[],
        notes=[f"{about}: no KID, precision, recall, density or coverage, and how its images were "
               "resized is not known"],
    )  # fmt: skip
    size = f"{resolution}x{resolution}"
    features = FeatureShard(
        ref.artifact, ref.kind, n=n, d=dim, record=record, size=size, versions=network_versions()
    )
    return KnownReference(images, features)


def known_features(ref: ArtifactRef) -> FeatureSet:
    """Reads a stored reference of statistics."""
    arrays = store.get_arrays(ref)
    count = int(arrays["count"][0]) or None
    return FeatureSet("reference", given=Statistics(arrays["mu"], arrays["sigma"], count))
