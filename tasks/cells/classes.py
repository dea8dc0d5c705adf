"""A class-conditional cell's images in, the share of the right class out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.features.classifier import ClassifierFeatures
from ddim_core.scores.class_accuracy import class_accuracy
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class ClassAccuracy:
    """The share of a cell's images of the class asked of them, with its interval; None of a cell
    without classes."""

    class_accuracy: float | None = None
    class_accuracy_low: float | None = None
    class_accuracy_high: float | None = None


@cached_task
def judge_classes(
    shards: Sequence[ArtifactRef],
    extractor: ArtifactRef,
    execution: Execution,
) -> ClassAccuracy:
    """Says in which share of a cell's images the classifier finds the class asked of them."""
    torch.set_num_threads(execution.threads)
    pixels = np.concatenate([store.get_arrays(shard)["images"] for shard in shards])
    with card(execution.device) as device:
        classifier = extractor_in_memory(extractor, pixels.shape[1:], device)
        assert isinstance(classifier, ClassifierFeatures)
        logits = classifier.logits(pixels)
    return ClassAccuracy(*class_accuracy(logits, range(len(pixels))))
