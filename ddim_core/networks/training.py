"""Training of a noise model: the loss, a moving average, and a loop that can be resumed."""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.common.plain_files import read_bytes
from ddim_core.devices.gradients import Gradients
from ddim_core.devices.reading import BEHIND, LossWatch, Reading
from ddim_core.devices.transfer import made_ahead, on_cpu, sent
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.images.pixels import from_uint8
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.objectives import lesson
from ddim_core.networks.specs import TrainSpec

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

BATCH_STREAM, ORDER_STREAM = 0, 1
DIGEST_SIZE = 32

# The network's inputs and its target in one step.
Batch: TypeAlias = tuple[tuple[Tensor, ...], Tensor]
# Sets the gradients of a batch's mean loss, and returns that.
SetGradients: TypeAlias = Callable[[tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class TrainStep:
    """What one optimiser step did.

    Attributes:
        step: Steps done so far, this one included; 1 to the spec's `steps`.
        reading: Of the loss, which a card may still be computing.
        learning_rate: Used in this step.
        images_per_second: Of this step alone, by the wall clock; on a card, which is some steps
            behind, right in the mean.
    """

    step: int
    reading: Reading
    learning_rate: float
    images_per_second: float

    @property
    def loss(self) -> float:
        """Mean squared error over the batch; of noise, 1 for a zero prediction."""
        return float(self.reading)


@dataclass
class TrainState:
    """All that a training run needs to go on exactly as if it had never stopped, and its device:
    the CPU, or a card."""

    unet: diffusers.UNet2DModel
    ema: diffusers.UNet2DModel
    optimizer: torch.optim.AdamW
    step: int
    device: str = "cpu"


def start(spec: TrainSpec, device: str = "cpu") -> TrainState:
    """The state before the first step, the same on each device; the average starts as a copy of
    the network."""
    unet, ema = (
        toy_unet(spec.model, spec.seed).to(memory_format=torch.channels_last).to(device)
        for _ in range(2)
    )
    unet.train()
    ema.requires_grad_(False)
    optimizer = torch.optim.AdamW(
        unet.parameters(), lr=spec.learning_rate, weight_decay=0.0, fused=True
    )
    return TrainState(unet, ema, optimizer, step=0, device=device)


def train(
    spec: TrainSpec,
    images: NDArray[np.uint8],
    state: TrainState,
    labels: NDArray[np.int64] | None = None,
) -> Iterator[TrainStep]:
    """Trains from `state` to the spec's last step, changing `state` in place before each record.

        L_simple = E || eps - eps_theta(sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t) ||^2

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14 and algorithm 1. With another objective the
    network learns what `lesson` says in the place of eps. The batch, the timesteps and the noise of
    a step are functions of (seed, step) alone, so a run stopped after any step and taken up from
    its saved state ends with bit-equal weights (at one number of threads).

    A card is given whole batches, drawn by the CPU one ahead, so that each step sees the same there
    as here. Its bits repeat where its kernels' do: inside `ddim_core.devices.arithmetic` all but
    the backward of attention, whose kernels add in no fixed order.

    Args:
        spec: What is trained and how.
        images: Training images uint8 [n, resolution, resolution, channels].
        state: From `start` or `load_state`.
        labels: Classes int64 [n] for a class-conditional network; each is left out of a step
            with probability spec.label_drop (Ho and Salimans 2022, arXiv:2207.12598, algorithm 1).

    Raises:
        ValueError: If images or labels do not fit the network, or the loss is not finite.
    """
    shape = (spec.model.resolution, spec.model.resolution, spec.model.channels)
    if images.shape[1:] != shape or len(images) == 0:
        raise ValueError(f"images have shape {images.shape}; the network needs [n >= 1, *{shape}]")
    classes = _checked_labels(spec, len(images), labels)
    alpha_bar = torch.tensor(NoiseSchedule.from_spec(spec.noise).alpha_bar)
    pixels = from_uint8(images)

    device = torch.device(state.device)

    def batch(step: int) -> Batch:
        inputs, target = _batch(spec, pixels, classes, alpha_bar, step)
        return tuple(sent(given, device) for given in inputs), sent(target, device)

    steps, on_card = range(state.step, spec.steps), state.device != "cpu"
    watch = LossWatch(BEHIND if on_card else 0)
    with ThreadPoolExecutor(2) as pool:
        batches = made_ahead(batch, steps) if on_card else map(batch, steps)
        set_gradients = _as_one(state.unet) if on_card else _by_halves(state.unet, pool)
        for step in steps:
            began = time.perf_counter()
            inputs, target = next(batches)
            rate = learning_rate(spec, step)
            loss = Reading(_update(spec, state, set_gradients, inputs, target, rate))
            watch.see(state.step, loss, is_last=state.step == spec.steps)
            seconds = time.perf_counter() - began
            yield TrainStep(state.step, loss, rate, spec.batch_size / seconds)


def learning_rate(spec: TrainSpec, step: int) -> float:
    """The rate of step 0, 1, ...: a linear rise over the warm-up, then half a cosine down to 0."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    return spec.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def ema_decay(spec: TrainSpec, step: int) -> float:
    """The decay of step 0, 1, ...: min(ema_decay, (1 + step) / (10 + step)), as in TensorFlow's
    `ExponentialMovingAverage`, so that the first weights are soon forgotten."""
    return min(spec.ema_decay, (1 + step) / (10 + step))


def _update(
    spec: TrainSpec,
    state: TrainState,
    set_gradients: SetGradients,
    inputs: tuple[Tensor, ...],
    target: Tensor,
    rate: float,
) -> Tensor:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    parameters = list(state.unet.parameters())
    loss = set_gradients(inputs, target)
    torch.nn.utils.clip_grad_norm_(parameters, spec.gradient_clip)
    state.optimizer.step()
    with torch.no_grad():
        weight = 1.0 - ema_decay(spec, state.step)
        torch._foreach_lerp_(list(state.ema.parameters()), parameters, weight)
    state.step += 1
    return loss


def _by_halves(unet: diffusers.UNet2DModel, pool: ThreadPoolExecutor) -> SetGradients:
    """The batch is cut in halves that are worked on side by side and added up in a fixed order:
    two cores are used, and the sum is the same with one."""
    parameters = list(unet.parameters())

    def set_gradients(inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        def half(rows: slice) -> tuple[Tensor, tuple[Tensor, ...]]:
            predicted = unet(*(given[rows] for given in inputs), return_dict=False)[0]
            loss = (predicted - target[rows]).square().sum() / target.numel()
            return loss.detach(), torch.autograd.grad(loss, parameters)

        middle = (len(target) + 1) // 2
        halves = [slice(0, middle), slice(middle, None)] if len(target) > 1 else [slice(None)]
        losses, gradients = zip(*pool.map(half, halves), strict=True)
        for parameter, *parts in zip(parameters, *gradients, strict=True):
            # Laid out as the parameter is: the fused optimiser walks both by memory, not by index.
            parameter.grad = torch.zeros_like(parameter)
            for part in parts:
                parameter.grad.add_(part)
        return torch.stack(losses).sum()

    return set_gradients


def _as_one(unet: diffusers.UNet2DModel) -> SetGradients:
    """The whole batch in one call, as a card takes it best."""
    parameters = list(unet.parameters())
    own = [torch.zeros_like(parameter) for parameter in parameters]  # laid out as these, as above
    for parameter, gradient in zip(parameters, own, strict=True):
        parameter.grad = gradient

    def loss_of(target: Tensor, *inputs: Tensor) -> Tensor:
        return torch.nn.functional.mse_loss(unet(*inputs, return_dict=False)[0], target)

    gradients = Gradients(loss_of, parameters)

    def set_gradients(inputs: tuple[Tensor, ...], target: Tensor) -> Tensor:
        loss, found = gradients(target, *inputs)
        torch._foreach_copy_(own, list(found))
        return loss

    return set_gradients


def _checked_labels(
    spec: TrainSpec, n_images: int, labels: NDArray[np.int64] | None
) -> Tensor | None:
    n_classes = spec.model.n_classes
    if n_classes is None:
        return None
    if labels is None or labels.shape != (n_images,):
        given = "no labels" if labels is None else f"labels of shape {labels.shape}"
        raise ValueError(f"there are {given}; a class-conditional network needs [{n_images}]")
    if not 0 <= labels.min() <= labels.max() < n_classes:
        raise ValueError(
            f"labels lie in {labels.min()}..{labels.max()}; they must lie in 0..{n_classes - 1}"
        )
    return torch.from_numpy(labels)


def _batch(
    spec: TrainSpec, pixels: Tensor, classes: Tensor | None, alpha_bar: Tensor, step: int
) -> Batch:
    """What a step sees: a function of (seed, step) alone."""
    stream = _generator(spec.seed, step, BATCH_STREAM)
    rows = _rows(spec, len(pixels), step)
    x_0 = pixels[rows]
    if spec.flip:
        mirrored = torch.rand(len(x_0), generator=stream) < 0.5
        x_0 = torch.where(mirrored[:, None, None, None], x_0.flip(-1), x_0)
    shown = lesson(spec.objective, x_0, alpha_bar, stream)
    x_t = shown.x_t.contiguous(memory_format=torch.channels_last)
    if classes is None:
        return (x_t, shown.t), shown.target
    labels = classes[rows]
    labels[torch.rand(len(x_0), generator=stream) < spec.label_drop] = int(
        spec.model.n_classes or 0
    )
    return (x_t, shown.t, labels), shown.target


def _rows(spec: TrainSpec, n_images: int, step: int) -> Tensor:
    """Rows of the step's images: the data set is gone through again and again, each time in a
    new order that is keyed by (seed, epoch)."""
    places = torch.arange(step * spec.batch_size, (step + 1) * spec.batch_size)
    rows = torch.empty_like(places)
    for epoch in range(int(places[0]) // n_images, int(places[-1]) // n_images + 1):
        order = torch.randperm(n_images, generator=_generator(spec.seed, epoch, ORDER_STREAM))
        here = places // n_images == epoch
        rows[here] = order[places[here] % n_images]
    return rows


def _generator(seed: int, index: int, stream: int) -> torch.Generator:
    key = np.random.SeedSequence([seed, index, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(key >> np.uint64(1)))


def save_state(spec: TrainSpec, state: TrainState, path: Path) -> None:
    """Writes the state to a file, whole or not at all; its tensors are the CPU's."""
    record = {
        "spec": repr(asdict(spec)),
        "step": state.step,
        "unet": state.unet.state_dict(),
        "ema": state.ema.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(on_cpu(record), buffer)
    content = buffer.getvalue()
    partial = path.with_name(path.name + ".partial")
    # torch does not notice a flipped bit, and other weights would come out.
    partial.write_bytes(hashlib.sha256(content).digest() + content)
    partial.replace(path)


def load_state(spec: TrainSpec, path: Path, device: str = "cpu") -> TrainState:
    """Reads a state that `save_state` wrote onto a device; nothing but tensors and plain values is
    unpickled.

    Raises:
        ValueError: If it is damaged, or belongs to another spec, since going on would give
            neither's weights.
    """
    data = read_bytes(path)
    if hashlib.sha256(data[DIGEST_SIZE:]).digest() != data[:DIGEST_SIZE]:
        raise ValueError(f"{path.name} is damaged: its bytes do not have their digest")
    record = torch.load(io.BytesIO(data[DIGEST_SIZE:]), weights_only=True)
    if record["spec"] != repr(asdict(spec)):
        raise ValueError(f"{path.name} was saved by a run of {record['spec']}, not of {spec}")
    state = start(spec, device)
    state.unet.load_state_dict(record["unet"])
    state.ema.load_state_dict(record["ema"])
    state.optimizer.load_state_dict(record["optimizer"])
    state.step = record["step"]
    return state
