"""Linear layers by oneDNN give what torch's own give, and so do their gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ddim_core.networks.frozen_linear import pack_frozen_linears


def network(bias: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(256, 320, bias=bias), nn.GELU(), nn.Linear(320, 256, bias=bias)
    )
    return layers.requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 256), (2, 33, 256), (2, 3, 5, 256)])
def test_products_and_gradients_agree_to_rounding(bias: bool, shape: tuple[int, ...]) -> None:
    plain = network(bias)
    packed = copy.deepcopy(plain)
    assert pack_frozen_linears(packed) == 2
    results = []
    for layers in (plain, packed):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        made = layers(x)
        made.square().sum().backward()
        assert x.grad is not None
        results.append((made.detach(), x.grad))
    for ours, theirs in zip(*results, strict=True):
        # Sums of 320 products of size about 1, in another order.
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_only_large_frozen_float32_layers_are_packed() -> None:
    trained = nn.Linear(256, 256)
    small = nn.Linear(16, 16).requires_grad_(False)
    half = nn.Linear(256, 256, dtype=torch.bfloat16).requires_grad_(False)
    assert pack_frozen_linears(nn.Sequential(trained, small, half)) == 0


def test_a_packed_layer_keeps_its_weight() -> None:
    layers = network(bias=True)
    before = {name: value.clone() for name, value in layers.state_dict().items()}
    pack_frozen_linears(layers)
    for name, value in layers.state_dict().items():
        assert torch.equal(value, before[name])
