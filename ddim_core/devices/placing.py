"""Networks as a card runs them best: laid out channels last, compiled where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def laid_out(network: nn.Module) -> nn.Module:
    """Returns a network whose convolutions lie channels last, as a GPU's tensor cores take them."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what torch.compile makes of a network's forward, for tensors of fixed shapes.

    The first call takes up to minutes. The bits are not those of the function.
    """
    made: Callable[..., Any] = torch.compile(function, dynamic=False)
    return made
