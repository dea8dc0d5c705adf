"""A LoRA on a card: trained in float32, and computed by copies in the format of its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class WorkingCopies:
    """The LoRA inside a network, and beside it the float32 weights that the optimiser moves.

    Autocast copies each weight in each forward and makes norms and their neighbours float32, which
    on a card takes longer than the products do. Here the copies are made once a step, and the
    network computes in its own format throughout; gradients have that format, as under autocast,
    and are added up in float32.

    Args:
        inside: The LoRA's parameters by name, still in float32; the network may be moved and
            converted afterwards.
        device: Where it will be.
    """

    def __init__(self, inside: Mapping[str, nn.Parameter], device: torch.device) -> None:
        self.inside: list[Tensor] = [*inside.values()]
        self.trained = {
            name: nn.Parameter(p.detach().to(device, torch.float32, copy=True))
            for name, p in inside.items()
        }
        self._trained: list[Tensor] = [*self.trained.values()]
        self._sums = [torch.zeros_like(p) for p in self._trained]
        self._landed = [torch.zeros_like(p) for p in self._trained]
        for parameter, total in zip(self._trained, self._sums, strict=True):
            parameter.grad = total

    @torch.no_grad()
    def begin(self) -> None:
        """Begins a step: copies the weights as they are now, and forgets the gradients."""
        torch._foreach_copy_(self.inside, self._trained)
        torch._foreach_zero_(self._sums)

    @torch.no_grad()
    def add(self, gradients: Sequence[Tensor]) -> None:
        """Adds gradients of the copies, in their order, to those of the weights."""
        torch._foreach_copy_(self._landed, list(gradients))
        torch._foreach_add_(self._sums, self._landed)
