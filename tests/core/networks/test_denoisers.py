"""The networks behind the noise model, and the promise that batches change nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from ddim_core.networks.batches import in_fixed_batches
from ddim_core.networks.denoisers import MAX_BATCH, UNetModel, _predict, toy_unet
from ddim_core.networks.specs import ToyModelSpec

SMALL = ToyModelSpec(widths=(8, 16), norm_groups=4)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def noisy(n: int, channels: int = 1, resolution: int = 8) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    x = torch.randn(n, channels, resolution, resolution, generator=stream)
    return x, torch.randint(0, 1000, (n,), generator=stream)


def in_batches_of(model: UNetModel, x: Tensor, t: Tensor, size: int) -> Tensor:
    return torch.cat([model(x[i : i + size], t[i : i + size]) for i in range(0, len(x), size)])


@pytest.mark.parametrize("attention", [(), (1,)])
def test_no_bit_of_a_prediction_depends_on_batch_place_or_threads(
    attention: tuple[int, ...],
) -> None:
    model = UNetModel(toy_unet(ToyModelSpec(widths=(16, 32), attention=attention), 0))
    x, t = noisy(128)
    expected = model(x, t)
    for size in (1, 7, 50, 64, 100):
        n = 2 if size == 1 else 128
        assert torch.equal(in_batches_of(model, x[:n], t[:n], size), expected[:n])
    order = torch.randperm(128, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model(x[order], t[order]), expected[order])
    torch.set_num_threads(2)
    assert torch.equal(in_batches_of(model, x, t, 50), expected)


@pytest.mark.parametrize("told", ["nothing", "classes", "a text"])
def test_a_trace_answers_as_its_network_does(told: str) -> None:
    x, t = noisy(5)
    others: tuple[Tensor, ...] = ()
    if told == "a text":
        unet: Any = text_unet()
        others = (torch.randn(5, 7, 8, generator=torch.Generator().manual_seed(2)),)
    else:
        spec = ToyModelSpec(widths=(8, 16), norm_groups=4, attention=(1,))
        unet = toy_unet(replace(spec, n_classes=10 if told == "classes" else None), 0)
        others = (torch.tensor([0, 1, 10, 3, 3]),) if told == "classes" else ()
    traced = UNetModel(unet)(x, t, *others)

    def plain(*inputs: Tensor) -> Tensor:
        return _predict(unet, *inputs)

    assert torch.equal(traced, in_fixed_batches(plain, MAX_BATCH, x, t, *others))


def text_unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def test_two_threads_at_once_get_the_same_bits() -> None:
    model = UNetModel(toy_unet(SMALL, 0))
    x, t = noisy(100)
    expected = model(x, t)
    results: dict[int, list[Tensor]] = {0: [], 1: []}

    def work(worker: int) -> None:
        for _ in range(5):
            results[worker].append(in_batches_of(model, x, t, 30 + worker))

    workers = [threading.Thread(target=work, args=(worker,)) for worker in results]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(len(got) == 5 for got in results.values())
    assert all(torch.equal(y, expected) for got in results.values() for y in got)


def test_larger_images_are_exact_too() -> None:
    spec = ToyModelSpec(resolution=32, channels=3, widths=(8, 16, 16), attention=(2,))
    model = UNetModel(toy_unet(spec, 0))
    x, t = noisy(9, channels=3, resolution=32)
    assert torch.equal(in_batches_of(model, x, t, 2), model(x, t))


def test_every_batch_has_the_same_size_and_padding_is_cut_off() -> None:
    sizes = []

    def double(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        return 2 * rows

    rows = torch.arange(10.0)
    assert torch.equal(in_fixed_batches(double, 4, rows), 2 * rows)
    assert sizes == [4, 4, 4]


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows"):
        in_fixed_batches(torch.neg, 4, torch.empty(0, 3))


def test_a_prediction_is_an_ordinary_tensor_of_the_images_dtype() -> None:
    x, t = noisy(3)
    got = UNetModel(toy_unet(SMALL, 0))(x.double(), t)
    assert got.dtype == torch.float64
    got += 1.0  # an inference tensor would refuse


def test_weights_follow_from_the_seed_and_leave_the_global_stream_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (toy_unet(SMALL, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


def test_the_network_has_the_shape_of_its_spec() -> None:
    unet = toy_unet(ToyModelSpec(16, 3, (8, 16, 24), attention=(1,), norm_groups=4), 0)
    assert unet.config.down_block_types == ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D")
    assert unet.config.up_block_types == ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    assert tuple(unet.config.block_out_channels) == (8, 16, 24)
    x, t = noisy(2, channels=3, resolution=16)
    assert UNetModel(unet)(x, t).shape == x.shape


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"resolution": 9}, "multiple of 4"),
        ({"channels": 2}, "1 or 3"),
        ({"widths": (8, 12, 16)}, "norm_groups"),
        ({"attention": (3,)}, "levels are 0 to 2"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToyModelSpec(**wrong)  # type: ignore[arg-type]
