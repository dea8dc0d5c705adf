"""A class-conditional cell's images in, what can be said of its classes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ddim_core.diffusion.labels import asked_labels
from ddim_core.diffusion.specs import Execution
from ddim_core.features.classifier import ClassifierFeatures
from ddim_core.scores.per_class import class_accuracy, per_class
from tasks.cells.extractor import StoredExtractor
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.images.prepare import PreparedImages, prepared
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class ClassScores:
    """What a cell's classes score; None of a cell without classes.

    Attributes:
        class_accuracy, class_accuracy_low, class_accuracy_high: The share of images of the class
            asked of them, with its interval; None where no classifier of the classes judges.
        per_class: `ddim_core.scores.per_class.PerClass` as JSON; None where the real images have
            no labels of these classes.
    """

    class_accuracy: float | None = None
    class_accuracy_low: float | None = None
    class_accuracy_high: float | None = None
    per_class: str | None = None


@cached_task
def judge_classes(
    shards: Sequence[ArtifactRef],
    features: Sequence[ArtifactRef],
    extractor: StoredExtractor,
    reference: ArtifactRef,
    real: PreparedImages,
    n_classes: int,
    execution: Execution,
) -> ClassScores:
    """Says in which share of a cell's images the classifier finds the class asked of them, and
    scores each class by itself.

    Args:
        shards, features: The cell's images, and what the extractor makes of them.
        extractor: Whose classes judge, where it has these.
        reference, real: Features of the real images, and these with their labels.
        n_classes: Of the checkpoint.
        execution: Device and threads.
    """
    torch.set_num_threads(execution.threads)
    found, accuracy = None, ClassScores()
    if extractor.n_classes == n_classes:
        logits = _logits(shards, extractor, execution)
        accuracy = ClassScores(*class_accuracy(logits, range(len(logits))))
        found = logits.argmax(axis=1)
    if real.n_classes != n_classes:
        return accuracy
    names, features_of_real, labels = _real(reference.artifact, real.artifact)
    generated = np.concatenate([store.get_arrays(ref)["features"] for ref in features])
    asked = asked_labels(range(len(generated)), n_classes).numpy()
    scored = per_class(names, generated, asked, features_of_real, labels, found, asked=True)
    told = accuracy.class_accuracy, accuracy.class_accuracy_low, accuracy.class_accuracy_high
    return ClassScores(*told, per_class=scored.to_json())


@lru_cache(maxsize=1)  # a grid's cells share theirs
def _real(
    features: str, images: str
) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.int64]]:
    """Names of the classes, and features and labels of the real images, by their artefacts."""
    found = prepared(ArtifactRef(artifact=images, kind="images"))
    assert found.labels is not None  # it has classes
    ref = ArtifactRef(artifact=features, kind="features")
    return found.class_names, store.get_arrays(ref)["features"], found.labels


def _logits(
    shards: Sequence[ArtifactRef], extractor: ArtifactRef, execution: Execution
) -> NDArray[np.float32]:
    pixels = np.concatenate([store.get_arrays(shard)["images"] for shard in shards])
    with card(execution.device) as device:
        classifier = extractor_in_memory(extractor, pixels.shape[1:], device)
        assert isinstance(classifier, ClassifierFeatures)
        return classifier.logits(pixels)
