"""A feature extractor: trained on the data set's labels, or the pixels themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from prefect import task

from ddim_core.classifier import train_classifier
from ddim_core.image_set import ImageSet
from ddim_core.inception import InceptionFeatures
from ddim_core.specs import ClassifierSpec, Execution
from tasks import store
from tasks.caching import cached_task
from tasks.store import ArtifactRef

EXTRACTORS = ("classifier", "inception-v3", "pixels")
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
    ref = store.put(extractor.to_bytes(), "classifier")
    return {
        **ref,
        "test_accuracy": extractor.accuracy(unseen),
        "n_test": len(unseen.images),
        "n_classes": extractor.about["n_classes"],
    }


@task(name="pixel-extractor")
def pixel_extractor() -> ArtifactRef:
    """Returns the reference of the extractor that takes the pixels as they are."""
    return store.put(b"pixels / 255", "pixels")


@task(name="inception-extractor")
def inception_extractor(location: str) -> ArtifactRef:
    """Copies the weights of Inception into the store; an empty location is torch-fidelity's own
    file, downloaded once by torch-fidelity's address where it is not there."""
    extractor = InceptionFeatures(location or None)
    extractor.check()
    return store.put(extractor.weights.read_bytes(), "inception-v3")


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
