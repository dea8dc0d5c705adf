"""Which class each image is asked to be of, and whether it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def asked_labels(indices: Sequence[int], n_classes: int) -> Tensor:
    """The class that each image is asked to be of: image k is of class k mod n_classes, int64 [n].

    So every cell of a grid asks the same of image k, in equal shares, and more images ask no
    other classes of the first ones.
    """
    return torch.tensor([index % n_classes for index in indices], dtype=torch.int64)
