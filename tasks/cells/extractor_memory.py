"""Feature extractors in memory: read from the store once per process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from ddim_core.common.digest import file_digest
from ddim_core.devices.names import is_card
from ddim_core.features.classifier import ClassifierFeatures
from ddim_core.features.extractor import FeatureExtractor, FeatureRecord, PixelFeatures
from ddim_core.features.network import NetworkFeatures
from ddim_core.features.registry import ExtractorChoice, open_extractor, pretrained
from ddim_core.networks.building import LOADING
from tasks.storage import store
from tasks.storage.places import local_dir
from tasks.storage.store import ArtifactRef


def extractor_in_memory(
    ref: ArtifactRef, image_shape: tuple[int, ...], device: str = "cpu", arithmetic: str = ""
) -> FeatureExtractor:
    """Returns a stored extractor for images of shape [h, w, c]; of each device the latest is kept.

    Args:
        ref: The extractor.
        image_shape: Of one image.
        device: The CPU, or one card that it is put on.
        arithmetic: Of float32 there, which a network on a card keeps.
    """
    record = record_of(ref)
    if record.extractor == "pixels":
        return PixelFeatures(*image_shape)
    with LOADING:
        return _memory_of(device)(record, device, arithmetic)


def forget() -> None:
    """Lets go of all extractors in memory."""
    _memory_of.cache_clear()


@cache
def _memory_of(device: str) -> Callable[[FeatureRecord, str, str], FeatureExtractor]:
    return lru_cache(maxsize=1)(_opened)


def record_of(ref: ArtifactRef) -> FeatureRecord:
    """Reads what a stored extractor is: its artefact is the record of its features."""
    return FeatureRecord.from_bytes(store.get(ref))


def weights_ref(record: FeatureRecord) -> ArtifactRef:
    """Where the store has an extractor's weights."""
    known = pretrained(record.extractor)
    kind = "folder" if known and known.folder else "weights"
    return ArtifactRef(artifact=record.extractor_weights_digest, kind=kind)


def _opened(record: FeatureRecord, device: str, arithmetic: str) -> FeatureExtractor:
    del arithmetic  # in whose graphs it is kept: another one has an extractor of its own
    ref = weights_ref(record)
    extractor: ClassifierFeatures | NetworkFeatures
    if record.extractor == "classifier":
        extractor = ClassifierFeatures.from_bytes(store.get(ref))
    else:
        place = store.get_folder(ref) if ref.kind == "folder" else _unpacked(ref)
        extractor = open_extractor(ExtractorChoice(record.extractor, str(place), record.resize))
    if is_card(device):
        extractor.to_card(device)
    return extractor


def _unpacked(ref: ArtifactRef) -> Path:
    path = local_dir("work", f"weights-{ref.artifact[:16]}.pth")
    if not path.is_file() or file_digest(path) != ref.artifact:
        store.write_whole(str(path), store.get(ref))
    return path
