"""A class-conditional cell's images in, the share of the right class out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.features.classifier import ClassifierFeatures
from ddim_core.scores.class_accuracy import class_accuracy
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def judge_classes(
    shards: Sequence[ArtifactRef], extractor: ArtifactRef, execution: Execution
) -> dict[str, Any]:
    """Says in which share of a cell's images the classifier finds the class asked of them."""
    torch.set_num_threads(execution.threads)
    pixels = np.concatenate([store.get_arrays(shard)["images"] for shard in shards])
    classifier = extractor_in_memory(extractor, pixels.shape[1:])
    assert isinstance(classifier, ClassifierFeatures)
    share, low, high = class_accuracy(classifier.logits(pixels), range(len(pixels)))
    return {"class_accuracy": share, "class_accuracy_low": low, "class_accuracy_high": high}
