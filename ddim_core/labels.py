"""Which class each image is asked to be of, and whether it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from torch import Tensor


def asked_labels(indices: Sequence[int], n_classes: int) -> Tensor:
    """The class that each image is asked to be of: image k is of class k mod n_classes, int64 [n].

    So every cell of a grid asks the same of image k, in equal shares, and more images ask no
    other classes of the first ones.
    """
    return torch.tensor([index % n_classes for index in indices], dtype=torch.int64)


def class_accuracy(
    logits: NDArray[np.float32], indices: Sequence[int]
) -> tuple[float, float, float]:
    """The share of images of the class asked of them, with its 95 % Wilson interval.

    Args:
        logits: A classifier's, float [n, n_classes].
        indices: The image indices k, which tell the classes asked for.
    """
    asked = asked_labels(indices, logits.shape[1]).numpy()
    right = int((logits.argmax(axis=1) == asked).sum())
    interval = binomtest(right, len(asked)).proportion_ci(0.95, method="wilson")
    return right / len(asked), float(interval.low), float(interval.high)
