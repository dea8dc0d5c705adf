"""Training as a card does it, for which a CPU stands in: the same steps up to rounding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.devices import gradients
from ddim_core.devices.reading import LossWatch, Reading
from ddim_core.networks import training
from ddim_core.networks.specs import Target, TargetSpec, ToyModelSpec, TrainSpec

CARD = "cpu:0"
SPEC = TrainSpec(
    model=ToyModelSpec(widths=(8, 16), norm_groups=4, attention=(1,), n_classes=3),
    steps=8,
    batch_size=9,
    warmup_steps=4,
    seed=3,
)
ROUNDING = 1e-4  # of losses: halves added up against one sum, float32
# Adam makes steps of a learning rate of gradients that are rounding alone; this is a quarter of it.
OF_WEIGHTS = 1e-3
LABELS = np.arange(30) % 3


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (30, 8, 8, 1)).astype(np.uint8)


def trained(images: np.ndarray, spec: TrainSpec = SPEC, device: str = CARD) -> list[torch.Tensor]:
    state = training.start(spec, device)
    list(training.train(spec, images, state, LABELS))
    return list(state.ema.state_dict().values())


@pytest.mark.parametrize("target", [None, "v", "flow"])
def test_a_card_sees_the_same_batches_and_learns_the_same(
    images: np.ndarray, target: Target | None
) -> None:
    spec = TargetSpec(**vars(SPEC), target=target) if target else SPEC
    for a, b in zip(trained(images, spec), trained(images, spec, "cpu"), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=OF_WEIGHTS)


def test_a_card_s_losses_are_those_of_a_cpu(images: np.ndarray) -> None:
    here, there = (
        [r.loss for r in training.train(SPEC, images, training.start(SPEC, device), LABELS)]
        for device in ("cpu", CARD)
    )
    assert there == pytest.approx(here, rel=ROUNDING)


def test_a_run_on_a_card_is_taken_up_with_the_same_bits(images: np.ndarray, tmp_path: Path) -> None:
    state = training.start(SPEC, CARD)
    for record in training.train(SPEC, images, state, LABELS):
        if record.step == 3:
            break
    training.save_state(SPEC, state, tmp_path / "state.pt")
    taken_up = training.load_state(SPEC, tmp_path / "state.pt", CARD)
    assert taken_up.device == CARD
    list(training.train(SPEC, images, taken_up, LABELS))
    assert all(map(torch.equal, taken_up.ema.state_dict().values(), trained(images)))


def test_a_loss_that_is_not_finite_stops_a_card_s_training(images: np.ndarray) -> None:
    spec = replace(SPEC, learning_rate=1e30, gradient_clip=1e30, steps=30, warmup_steps=0)
    with pytest.raises(ValueError, match="lower the learning_rate"):
        list(training.train(spec, images, training.start(spec, CARD), LABELS))


def test_losses_are_looked_at_some_steps_later_and_all_at_the_end() -> None:
    watch = LossWatch(behind=2)
    bad = Reading(torch.tensor(float("nan")))
    watch.see(1, bad, is_last=False)
    watch.see(2, Reading(torch.tensor(1.0)), is_last=False)
    with pytest.raises(ValueError, match="nan at step 1"):
        watch.see(3, Reading(torch.tensor(1.0)), is_last=False)
    with pytest.raises(ValueError, match="at step 1;"):
        LossWatch(behind=2).see(1, bad, is_last=True)


def test_gradients_without_a_graph_are_autograd_s() -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))
    found = gradients.Gradients(lambda x: (x * weight).square().sum(), [weight])
    loss, (gradient,) = found(torch.tensor([1.0, 2.0]))
    assert float(loss) == 40.0
    assert gradient.tolist() == [4.0, 24.0]
    assert weight.grad is None
