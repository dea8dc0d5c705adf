"""The arithmetic of float32 on a GPU, which torch keeps for a whole process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Condition

import torch

_changed = Condition()
_inside: dict[bool, int] = {True: 0, False: 0}  # threads that compute with TF32, and without
_waiting: list[tuple[int, bool]] = []  # those that wait, in their order, and what they want
_numbers = count()
WHOLE = ("float32", "float64")


@contextmanager
def arithmetic(dtype: str) -> Iterator[None]:
    """Inside, float32 products and convolutions on a GPU are what a cell's `dtype` says.

    Whole in `float32`, where torch by itself rounds the factors of convolutions; in `tf32`, and
    where a network in 16 bits does some of its work in float32, factors are rounded to 10 bits.
    Convolutions take algorithms that give the same bits every time. The switch is the whole
    process's: threads that want it otherwise take turns.

    Args:
        dtype: Of a cell, or `tf32`.
    """
    tf32 = dtype not in WHOLE
    with _changed:
        mine = (next(_numbers), tf32)
        _waiting.append(mine)
        _changed.wait_for(lambda: _may_enter(mine))
        _waiting.remove(mine)
        _inside[tf32] += 1
        _changed.notify_all()
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        with _changed:
            _inside[tf32] -= 1
            _changed.notify_all()


def _may_enter(mine: tuple[int, bool]) -> bool:
    """Whether no one computes otherwise, nor has waited longer to."""
    number, tf32 = mine
    return _inside[not tf32] == 0 and all(
        wanted == tf32 for earlier, wanted in _waiting if earlier < number
    )


def network_dtype(dtype: str) -> torch.dtype:
    """Returns the number format of the weights of a cell's networks."""
    found: torch.dtype = getattr(torch, "float32" if dtype == "tf32" else dtype)
    return found
