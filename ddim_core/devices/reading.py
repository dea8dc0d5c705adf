"""Numbers that a card is still computing, such as losses, read without holding up what follows."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

BEHIND = 8  # steps that a training on a card may be ahead of the last loss that was looked at


class Reading:
    """A number as it is now, a tensor of one value; `float` waits for that alone on CUDA.

    A tensor's own `float` waits for all that was asked of the card since.
    """

    def __init__(self, value: Tensor) -> None:
        self._value = value.detach()
        self._done: torch.cuda.Event | None = None
        if value.is_cuda:
            self._value = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._value.copy_(value.detach(), non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record(torch.cuda.current_stream(value.device))

    def __float__(self) -> float:
        if self._done is not None:
            self._done.synchronize()
        return float(self._value)


class LossWatch:
    """Looks at the losses of a training, on a card some steps later.

    Args:
        behind: Steps that may follow before a loss is looked at; 0 looks at each at once.
    """

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._unseen: deque[tuple[int, Reading]] = deque()

    def see(self, step: int, loss: Reading, is_last: bool) -> None:
        """Takes the loss of a step, and looks at those that it is time for; at the last step all.

        Raises:
            ValueError: If one is not finite.
        """
        self._unseen.append((step, loss))
        while len(self._unseen) > (0 if is_last else self._behind):
            before, reading = self._unseen.popleft()
            require_finite(before, float(reading))


def require_finite(step: int, loss: float) -> None:
    """Makes sure that a training still is one: asked of a step before its state is saved, since a
    card may be some steps ahead of what was looked at.

    Raises:
        ValueError: If the loss of a step is not finite.
    """
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss} at step {step}; lower the learning_rate")
