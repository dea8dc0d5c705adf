"""A feature extractor in the store: trained on the data set's labels, pretrained, or pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from prefect import task

from ddim_core.diffusion.specs import Execution
from ddim_core.features.classifier import train_classifier
from ddim_core.features.extractor import FeatureRecord, PixelFeatures
from ddim_core.features.model_folder import model_files
from ddim_core.features.network import NetworkFeatures
from ddim_core.features.registry import ExtractorChoice, open_extractor
from ddim_core.images.image_set import ImageSet
from ddim_core.networks.specs import ClassifierSpec
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

HELD_OUT_EVERY = 5


@dataclass(frozen=True)
class StoredExtractor(ArtifactRef):
    """An extractor: the artefact is the record of its features.

    Attributes:
        name, resize: Of the record; None without a resize.
        weights: None where there are none.
        test_accuracy, n_test, n_classes: Of a trained one, on held-out images.
    """

    name: str
    resize: str | None
    weights: ArtifactRef | None
    test_accuracy: float | None = None
    n_test: int | None = None
    n_classes: int | None = None


@cached_task
def train_extractor(
    spec: ClassifierSpec,
    train: ArtifactRef,
    held_out: ArtifactRef | None,
    execution: Execution,
) -> StoredExtractor:
    """Trains the classifier whose last convolution is the feature space.

    Where the data set has no held-out part, every fifth image is kept from training to test it.

    Args:
        spec, train, held_out: How, on what, and what tests it.
        execution: Device and threads.
    """
    torch.set_num_threads(execution.threads)
    fitted = _labelled(train)
    if held_out:
        unseen = _labelled(held_out)
    else:
        unseen, fitted = _every(fitted, HELD_OUT_EVERY)
    with card(execution.device) as device:
        extractor = train_classifier(spec, fitted, unseen, device)
    weights = store.put(extractor.to_bytes(), "weights")
    return replace(
        _stored(extractor.record, weights),
        test_accuracy=extractor.accuracy(unseen),
        n_test=len(unseen.images),
        n_classes=extractor.about.n_classes,
    )


@task(name="ready-extractor")
def ready_extractor(choice: ExtractorChoice) -> StoredExtractor:
    """Puts an extractor that needs no training into the store, its weights with it.

    Weights that are nowhere on this machine are downloaded from their usual place, where there is
    a way to it.
    """
    if choice.name == "pixels":
        return _stored(PixelFeatures(1, 1, 1).record, None)
    extractor = open_extractor(choice)
    place = extractor.weights
    weights = (
        store.put_files({name: (place / name).read_bytes() for name in _files(extractor)})
        if place.is_dir()
        else store.put(place.read_bytes(), "weights")
    )
    return _stored(extractor.record, weights)


def _files(extractor: NetworkFeatures) -> list[str]:
    """The files of a folder that make an extractor what it is."""
    return [*model_files(extractor.weights), *filter(None, [extractor.beside])]


def _stored(record: FeatureRecord, weights: ArtifactRef | None) -> StoredExtractor:
    """Stores an extractor as the record of its features, with its weights beside."""
    ref = store.put(record.to_bytes(), "extractor")
    resize = None if record.resize == "none" else record.resize
    return StoredExtractor(ref.artifact, ref.kind, record.extractor, resize, weights)


def _labelled(ref: ArtifactRef) -> ImageSet:
    arrays = store.get_arrays(ref)
    return ImageSet(arrays["images"], arrays.get("labels"), "this", "data set")


def _every(images: ImageSet, k: int) -> tuple[ImageSet, ImageSet]:
    """Splits images into every k-th and the others."""
    chosen = np.arange(len(images.images)) % k == 0
    labels = images.labels
    if labels is None:
        return images, images  # train_classifier refuses it in words
    return (
        ImageSet(images.images[chosen], labels[chosen], images.name, "held out"),
        ImageSet(images.images[~chosen], labels[~chosen], images.name, "train"),
    )
