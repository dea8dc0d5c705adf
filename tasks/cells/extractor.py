"""A feature extractor in the store: trained on the data set's labels, pretrained, or pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from prefect import task

from ddim_core.diffusion.specs import ClassifierSpec, Execution
from ddim_core.features.classifier import train_classifier
from ddim_core.features.extractor import FeatureRecord, PixelFeatures
from ddim_core.features.model_folder import model_files
from ddim_core.features.registry import ExtractorChoice, open_extractor
from ddim_core.images.image_set import ImageSet
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

HELD_OUT_EVERY = 5


@cached_task
def train_extractor(
    spec: ClassifierSpec, train: ArtifactRef, held_out: ArtifactRef | None, execution: Execution
) -> dict[str, Any]:
    """Trains the classifier whose last convolution is the feature space.

    Returns a reference to it, with its accuracy on held-out images; where the data set has no
    held-out part, every fifth image is kept from training for that.
    """
    torch.set_num_threads(execution.threads)
    fitted = _labelled(train)
    if held_out:
        unseen = _labelled(held_out)
    else:
        unseen, fitted = _every(fitted, HELD_OUT_EVERY)
    extractor = train_classifier(spec, fitted, unseen)
    weights = store.put(extractor.to_bytes(), "weights")
    return {
        **_stored(extractor.record, weights),
        "test_accuracy": extractor.accuracy(unseen),
        "n_test": len(unseen.images),
        "n_classes": extractor.about["n_classes"],
    }


@task(name="ready-extractor")
def ready_extractor(choice: ExtractorChoice) -> ArtifactRef:
    """Puts an extractor that needs no training into the store, its weights with it.

    Weights that are nowhere on this machine are downloaded from their usual place, where there is
    a way to it.
    """
    if choice.name == "pixels":
        return _stored(PixelFeatures(1, 1, 1).record, None)
    extractor = open_extractor(choice)
    place = extractor.weights
    weights = (
        store.put_files({name: (place / name).read_bytes() for name in model_files(place)})
        if place.is_dir()
        else store.put(place.read_bytes(), "weights")
    )
    return _stored(extractor.record, weights)


def _stored(record: FeatureRecord, weights: ArtifactRef | None) -> ArtifactRef:
    """Stores an extractor as the record of its features, with its weights beside."""
    ref = store.put(record.to_bytes(), "extractor")
    resize = None if record.resize == "none" else record.resize
    named = {**ref, "name": record.extractor, "resize": resize}
    return {**named, "weights": weights} if weights else named


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
