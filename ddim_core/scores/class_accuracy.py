"""The share of images of the class that was asked of them, with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ddim_core.diffusion.labels import asked_labels


def class_accuracy(
    logits: NDArray[np.float32], indices: Sequence[int]
) -> tuple[float, float, float]:
    """The share of images of the class asked of them, with its 95 % Wilson interval.

    Args:
        logits: A classifier's, float [n, n_classes].
        indices: The image indices k, which tell the classes asked for.
    """
    from scipy.stats import binomtest

    asked = asked_labels(indices, logits.shape[1]).numpy()
    right = int((logits.argmax(axis=1) == asked).sum())
    interval = binomtest(right, len(asked)).proportion_ci(0.95, method="wilson")
    return right / len(asked), float(interval.low), float(interval.high)
