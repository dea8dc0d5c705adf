"""A class-conditional cell's images in, the share of the right class out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ddim_core.class_accuracy import class_accuracy
from ddim_core.classifier import ClassifierFeatures
from ddim_core.specs import Execution
from tasks import store
from tasks.caching import cached_task
from tasks.feature_models import extractor_in_memory
from tasks.store import ArtifactRef


@cached_task
def judge_classes(
    shards: list[ArtifactRef], extractor: ArtifactRef, execution: Execution
) -> dict[str, Any]:
    """Says in which share of a cell's images the classifier finds the class asked of them."""
    torch.set_num_threads(execution.threads)
    pixels = np.concatenate([store.get_arrays(shard)["images"] for shard in shards])
    classifier = extractor_in_memory(extractor, pixels.shape[1:])
    assert isinstance(classifier, ClassifierFeatures)
    share, low, high = class_accuracy(classifier.logits(pixels), range(len(pixels)))
    return {"class_accuracy": share, "class_accuracy_low": low, "class_accuracy_high": high}
