"""The arithmetic of float32 on a GPU, which torch keeps for a whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

import torch

_changed = Condition()
_inside: dict[bool, int] = {True: 0, False: 0}  # threads that compute with TF32, and without


@contextmanager
def arithmetic(dtype: str) -> Iterator[None]:
    """Inside, float32 products and convolutions on a GPU are what a cell's `dtype` says.

    `tf32` rounds their factors to 10 bits; everything else leaves them whole, where torch by itself
    rounds those of convolutions. Convolutions take algorithms that give the same bits every time.
    The switch is the whole process's: threads that want it otherwise wait until no one is inside.

    Args:
        dtype: Of a cell; number formats other than `tf32` mean whole float32.
    """
    tf32 = dtype == "tf32"
    with _changed:
        _changed.wait_for(lambda: _inside[not tf32] == 0)
        _inside[tf32] += 1
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        with _changed:
            _inside[tf32] -= 1
            _changed.notify_all()


def network_dtype(dtype: str) -> torch.dtype:
    """Returns the number format of the weights of a cell's networks."""
    found: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return found
