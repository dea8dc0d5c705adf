"""Training: the loss, the average, and runs that stop and go on."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.images.load import load_images
from ddim_core.images.pixels import from_uint8
from ddim_core.networks import training
from ddim_core.networks.specs import Target, TargetSpec, ToyModelSpec, TrainSpec

SPEC = TrainSpec(
    model=ToyModelSpec(widths=(8, 16), norm_groups=4),
    steps=12,
    batch_size=16,
    warmup_steps=4,
    seed=3,
)
ALPHA_BAR = torch.tensor(NoiseSchedule.from_spec(SPEC.noise).alpha_bar)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return load_images("digits", "train").images[:50]


def run(spec: TrainSpec, images: np.ndarray, state: training.TrainState, steps: int) -> None:
    for record in training.train(spec, images, state):
        if record.step == steps:
            return


def same_weights(a: training.TrainState, b: training.TrainState) -> bool:
    pairs = [(a.unet, b.unet), (a.ema, b.ema)]
    return all(
        torch.equal(x, y)
        for one, two in pairs
        for x, y in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_run_stopped_and_taken_up_ends_with_the_same_bits(
    images: np.ndarray, tmp_path: Path, stop: int
) -> None:
    undisturbed = training.start(SPEC)
    run(SPEC, images, undisturbed, SPEC.steps)
    stopped = training.start(SPEC)
    run(SPEC, images, stopped, stop)
    training.save_state(SPEC, stopped, tmp_path / "state.pt")
    torch.manual_seed(99)  # a new process has another global stream
    resumed = training.load_state(SPEC, tmp_path / "state.pt")
    assert resumed.step == stop
    run(SPEC, images, resumed, SPEC.steps)
    assert same_weights(resumed, undisturbed)
    assert not same_weights(stopped, undisturbed)


def test_a_seed_gives_other_weights(images: np.ndarray) -> None:
    states = [training.start(replace(SPEC, seed=seed)) for seed in (0, 1)]
    for seed, state in enumerate(states):
        run(replace(SPEC, seed=seed), images, state, 2)
    assert not same_weights(*states)


def test_a_state_of_another_spec_is_refused(tmp_path: Path) -> None:
    training.save_state(SPEC, training.start(SPEC), tmp_path / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt was saved by a run of"):
        training.load_state(replace(SPEC, learning_rate=1e-4), tmp_path / "state.pt")


def test_a_state_with_code_in_it_is_not_unpickled(tmp_path: Path) -> None:
    planted = io.BytesIO()
    torch.save({"spec": Path("planted")}, planted)
    content = planted.getvalue()
    (tmp_path / "state.pt").write_bytes(hashlib.sha256(content).digest() + content)
    with pytest.raises(Exception, match="weights_only"):
        training.load_state(SPEC, tmp_path / "state.pt")


def test_a_batch_is_the_noisy_image_that_the_schedule_says(images: np.ndarray) -> None:
    pixels = from_uint8(images)
    (x_t, t), eps = training._batch(SPEC, pixels, None, ALPHA_BAR, step=7)
    signal = ALPHA_BAR[t].sqrt()[:, None, None, None]
    noise = (1 - ALPHA_BAR[t]).sqrt()[:, None, None, None]
    x_0 = (x_t.double() - noise * eps.double()) / signal
    rows = training._rows(SPEC, len(pixels), 7)
    # float32 rounding of x_t (6e-8 of about 4), blown up by 1 / signal
    tolerance = 1e-6 / signal
    assert ((x_0 - pixels[rows]).abs() <= tolerance).all()


def test_the_loss_is_the_mean_squared_error_of_the_noise(images: np.ndarray) -> None:
    state = training.start(SPEC)
    (x_t, t), eps = training._batch(SPEC, from_uint8(images), None, ALPHA_BAR, 0)
    with torch.no_grad():
        expected = (state.unet(x_t, t).sample - eps).square().mean()
    record = next(training.train(SPEC, images, state))
    assert record.step == state.step == 1
    # the same sum in another order, float32
    assert record.loss == pytest.approx(float(expected), rel=1e-5)
    assert record.images_per_second > 0


@pytest.mark.parametrize("target", ["v", "flow"])
def test_another_objective_is_what_the_loss_is_of_and_is_taken_up_again(
    images: np.ndarray, tmp_path: Path, target: Target
) -> None:
    spec = TargetSpec(model=SPEC.model, steps=3, batch_size=16, seed=3, target=target)
    undisturbed, stopped = training.start(spec), training.start(spec)
    (x_t, t), wanted = training._batch(spec, from_uint8(images), None, ALPHA_BAR, 0)
    with torch.no_grad():
        expected = (undisturbed.unet(x_t, t).sample - wanted).square().mean()
    record = next(training.train(spec, images, undisturbed))
    assert record.loss == pytest.approx(float(expected), rel=1e-5)  # as above
    run(spec, images, undisturbed, 3)
    run(spec, images, stopped, 2)
    training.save_state(spec, stopped, tmp_path / "state.pt")
    resumed = training.load_state(spec, tmp_path / "state.pt")
    run(spec, images, resumed, 3)
    assert same_weights(resumed, undisturbed)
    with pytest.raises(ValueError, match="was saved by a run of"):
        training.load_state(SPEC, tmp_path / "state.pt")


def test_every_image_is_seen_once_an_epoch_in_a_new_order() -> None:
    spec = replace(SPEC, batch_size=16)
    rows = torch.cat([training._rows(spec, 50, step) for step in range(25)]).reshape(8, 50)
    assert all(torch.equal(epoch.sort().values, torch.arange(50)) for epoch in rows)
    assert not torch.equal(rows[0], rows[1])


def test_noise_and_timesteps_of_steps_are_independent() -> None:
    pixels = torch.zeros(50, 1, 8, 8)
    eps = torch.stack([training._batch(SPEC, pixels, None, ALPHA_BAR, s)[1] for s in range(20)])
    flat = eps.reshape(20, -1)
    correlation = torch.corrcoef(flat) - torch.eye(20)
    assert correlation.abs().max() < 5 / flat.shape[1] ** 0.5  # five standard errors


def test_flips_happen_only_when_asked_for() -> None:
    ramp = torch.arange(8.0).expand(50, 1, 8, 8) / 8
    clean = torch.ones(1)  # alpha_bar = 1: x_t is x_0
    plain = training._batch(SPEC, ramp, None, clean, 0)[0][0]
    assert torch.equal(plain, ramp[:16])
    flipped = training._batch(replace(SPEC, flip=True), ramp, None, clean, 0)[0][0]
    mirrored = (flipped == ramp[:16].flip(-1)).all(dim=(1, 2, 3))
    kept = (flipped == ramp[:16]).all(dim=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 0 < int(mirrored.sum()) < 16


def test_the_average_follows_its_recursion(images: np.ndarray) -> None:
    state = training.start(SPEC)
    average = [p.detach().clone() for p in state.ema.parameters()]
    for record in training.train(SPEC, images, state):
        decay = training.ema_decay(SPEC, record.step - 1)
        average = [
            decay * old + (1 - decay) * new.detach()
            for old, new in zip(average, state.unet.parameters(), strict=True)
        ]
    got = list(state.ema.parameters())
    # twelve float32 roundings of weights below 2
    assert max(float((a - b).abs().max()) for a, b in zip(average, got, strict=True)) < 3e-6


def test_ema_warms_up_and_the_rate_rises_and_falls() -> None:
    spec = replace(SPEC, steps=1000, warmup_steps=100, learning_rate=1.0, ema_decay=0.99)
    assert training.ema_decay(spec, 0) == 0.1
    assert training.ema_decay(spec, 10_000) == 0.99
    rates = [training.learning_rate(spec, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == rates[100] == max(rates) == 1.0
    assert rates[550] == pytest.approx(0.5)
    assert 0 < rates[999] < 1e-5


def test_training_lowers_the_loss() -> None:
    everything = load_images("digits", "train").images
    spec = replace(SPEC, steps=80, batch_size=64, warmup_steps=10)
    losses = [record.loss for record in training.train(spec, everything, training.start(spec))]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="the network needs"):
        next(training.train(SPEC, np.zeros((4, 9, 9, 1), np.uint8), training.start(SPEC)))


def test_a_diverged_run_ends_with_a_reason(images: np.ndarray) -> None:
    spec = replace(SPEC, learning_rate=1e30, warmup_steps=0)
    with pytest.raises(ValueError, match="lower the learning_rate"):
        list(training.train(spec, images, training.start(spec)))


@pytest.mark.parametrize("place", [0.0, 0.5, 0.9])
def test_a_state_with_one_flipped_bit_is_refused(tmp_path: Path, place: float) -> None:
    path = tmp_path / "state.pt"
    training.save_state(SPEC, training.start(SPEC), path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"state\.pt is damaged"):
        training.load_state(SPEC, path)


def test_halves_side_by_side_train_as_one_backward_pass_does(images: np.ndarray) -> None:
    ours, plain = training.start(SPEC), training.start(SPEC)
    parameters = list(plain.unet.parameters())
    run(SPEC, images, ours, 5)
    for step in range(5):
        (x_t, t), eps = training._batch(SPEC, from_uint8(images), None, ALPHA_BAR, step)
        for group in plain.optimizer.param_groups:
            group["lr"] = training.learning_rate(SPEC, step)
        plain.optimizer.zero_grad()
        torch.nn.functional.mse_loss(plain.unet(x_t, t, return_dict=False)[0], eps).backward()
        torch.nn.utils.clip_grad_norm_(parameters, SPEC.gradient_clip)
        plain.optimizer.step()
    # Adam divides by the gradient's size, so rounding moves a weight whose gradient is near 0 by up
    # to the learning rate, 4e-3: hence the mean. Gradients in the wrong places give 2e-3.
    for a, b in zip(ours.unet.parameters(), parameters, strict=True):
        assert (a - b).abs().mean() < 1e-5


LABELLED = replace(SPEC, model=replace(SPEC.model, n_classes=10))


def test_labels_are_left_out_as_often_as_asked_and_change_no_other_draw(images: np.ndarray) -> None:
    spec = replace(LABELLED, batch_size=4000, label_drop=0.3)
    pixels, classes = from_uint8(images), torch.arange(len(images)) % 10
    (x_t, t, labels), eps = training._batch(spec, pixels, classes, ALPHA_BAR, 0)
    (plain_x, plain_t), plain_eps = training._batch(spec, pixels, None, ALPHA_BAR, 0)
    assert torch.equal(x_t, plain_x)
    assert torch.equal(t, plain_t)
    assert torch.equal(eps, plain_eps)
    kept = labels != 10
    # five standard errors of a share of 0.3 among 4,000
    assert float((~kept).double().mean()) == pytest.approx(0.3, abs=5 * (0.21 / 4000) ** 0.5)
    assert torch.equal(labels[kept], classes[training._rows(spec, len(pixels), 0)][kept])


def test_a_conditional_network_learns_from_labels(images: np.ndarray) -> None:
    labels = np.arange(len(images)) % 10
    one, other = training.start(LABELLED), training.start(LABELLED)
    next(training.train(LABELLED, images, one, labels))
    next(training.train(LABELLED, images, other, (labels + 1) % 10))
    assert not same_weights(one, other)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(None, "no labels"), (np.zeros(3, np.int64), r"\(3,\)"), (np.full(50, 10), "10..10")],
)
def test_labels_that_do_not_fit_are_refused(
    images: np.ndarray, labels: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(training.train(LABELLED, images, training.start(LABELLED), labels))
