"""Frozen linear layers by oneDNN, for training around them on a CPU.

PyTorch's own linear layers multiply by MKL, which on AMD processors leaves half of AVX-512 unused:
113 against 260 GFLOP/s a core where this was measured. oneDNN multiplies at full speed on either
make, from weights laid out for it once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

LEAST_WEIGHTS = 2**16  # below, the call costs more than the product
ROWS = 1024  # the layout suits products of about as many rows; any number works


def pack_frozen_linears(network: nn.Module) -> int:
    """Makes the large frozen linear layers of a network on a CPU run by oneDNN; returns how many.

    Results and gradients differ from before by float32 rounding. A layer keeps its weight, so that
    saving and reading it stay as they are; the two layouts, for the product and for its gradient,
    take twice the weight's memory besides. Layers that are trained, small, not float32 or not on a
    CPU are left alone.
    """
    n_packed = 0
    for module in network.modules():
        if type(module) is nn.Linear and _is_meant(module.weight):
            module.forward = _Packed(module)  # type: ignore[method-assign, assignment]
            n_packed += 1
    return n_packed


def _is_meant(weight: Tensor) -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and not weight.requires_grad
        and weight.numel() >= LEAST_WEIGHTS
    )


class _Packed:
    """A linear layer's product, with its weight and the transposed one laid out."""

    def __init__(self, layer: nn.Linear) -> None:
        weight = layer.weight.detach()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self.transposed = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), ROWS)
        self.bias = layer.bias

    def __call__(self, x: Tensor) -> Tensor:
        made: Tensor = _Product.apply(x, self.weight, self.transposed, self.bias)
        return made


class _Product(torch.autograd.Function):
    """x W^T + b, whose gradient reaches x alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, transposed: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.transposed = transposed
        return _linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _linear(gradients[0].contiguous(), ctx.transposed, None), None, None, None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return made
