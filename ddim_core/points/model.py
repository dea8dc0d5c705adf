"""A noise model of points in the plane, and its training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.building import LOADING
from ddim_core.points.datasets import STANDARD_DEVIATION, TRAINING, stream, true_points
from ddim_core.points.specs import PointModelSpec, PointTrainSpec

RARE = 3.0
"""Distance from the centre, in standard deviations, beyond which training sees few points."""


class PointModel(nn.Module):
    """Predicts the noise in points: float32 [n, 2] and timesteps int64 [n] to float32 [n, 2].

        eps = c_skip x + c_out F(features of x / sqrt(v) and of t)
        v = 4 alpha_bar + 1 - alpha_bar,  c_skip = sqrt(1 - alpha_bar) / v,
        c_out = sqrt(4 alpha_bar / v)

    v is the variance of x, c_skip x the best linear prediction of eps, and c_out the standard
    deviation of what is left, so that the network F sees and predicts numbers of variance 1 at
    every noise level (Karras et al. 2022, arXiv:2206.00364, appendix B.6, for this schedule and
    for eps). Without sharp features of the points it would blur the space between the roll's
    arms: F sees sines and cosines of them along fixed random directions (Tancik et al. 2020,
    arXiv:2006.10739), and those of the log signal-to-noise ratio. The former fade where points
    are rare: there they would only oscillate, and without them F goes on linearly, as eps does.

    Args:
        spec: The network.
        noise: The schedule whose timesteps it is asked about.
        seed: Keys the waves and the initial weights.

    Raises:
        ValueError: If alpha_bar is 0 at the last timestep.
    """

    scales: Tensor
    levels: Tensor
    waves: Tensor

    def __init__(self, spec: PointModelSpec, noise: NoiseSpec, seed: int = 0) -> None:
        super().__init__()
        alpha_bar = torch.tensor(NoiseSchedule.from_spec(noise).alpha_bar)
        if alpha_bar[-1] == 0.0:
            raise ValueError(
                f"alpha_bar ends at 0 in {noise}; noise prediction says nothing there, so train "
                "on a schedule that keeps some signal"
            )
        variance = STANDARD_DEVIATION**2 * alpha_bar + 1.0 - alpha_bar
        scales = [
            variance.rsqrt(),
            (1.0 - alpha_bar).sqrt() / variance,
            STANDARD_DEVIATION * (alpha_bar / variance).sqrt(),
        ]
        log_snr = 0.5 * (alpha_bar.log() - (1.0 - alpha_bar).log())
        harmonics = torch.arange(1, spec.time_waves + 1) * (math.pi / (log_snr[0] - log_snr[-1]))
        phases = (log_snr - log_snr[-1])[:, None] * harmonics
        self.register_buffer("scales", torch.stack(scales, dim=1).float())
        self.register_buffer("levels", torch.cat([phases.sin(), phases.cos()], dim=1).float())
        own = torch.Generator().manual_seed(seed)
        waves = torch.randn(2, spec.point_waves, generator=own)
        self.register_buffer("waves", spec.point_frequency * waves)
        sizes = [2 + 2 * spec.point_waves] + [spec.width] * spec.depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.time = nn.Linear(2 * spec.time_waves, spec.width * spec.depth)
        self.last = nn.Linear(spec.width, 2)
        for layer in [*self.layers, self.time]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear", generator=own)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        c_in, c_skip, c_out = self.scales[t].split(1, dim=1)
        point = c_in * x
        phases = point @ self.waves
        fade = (-((point / RARE).square().sum(dim=1, keepdim=True) ** 2)).exp()
        h = torch.cat([point, fade * phases.sin(), fade * phases.cos()], dim=1)
        shifts = self.time(self.levels)[t].chunk(len(self.layers), dim=1)
        for layer, shift in zip(self.layers, shifts, strict=True):
            h = nn.functional.silu(layer(h) + shift)
        return c_skip * x + c_out * self.last(h)


@dataclass(frozen=True)
class PointTrainStep:
    """What one optimiser step did.

    Attributes:
        step: Steps done so far, this one included; 1 to the spec's `steps`.
        loss: Mean squared error of the predicted noise over the batch.
    """

    step: int
    loss: float


@dataclass
class PointTrainState:
    """A training run between two steps."""

    model: PointModel
    ema: PointModel
    optimizer: torch.optim.Adam
    step: int


def start(spec: PointTrainSpec) -> PointTrainState:
    """The state before the first step; the average starts as a copy of the network."""
    with LOADING:
        model = PointModel(spec.model, spec.noise, spec.seed)
        ema = PointModel(spec.model, spec.noise, spec.seed).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.learning_rate, fused=True)
    return PointTrainState(model, ema, optimizer, step=0)


def train_points(spec: PointTrainSpec, state: PointTrainState) -> Iterator[PointTrainStep]:
    """Trains from `state` to the spec's last step, changing `state` in place before each record.

        L = E || eps - eps_theta(sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, t) ||^2

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14. Every step draws new points, timesteps and
    noise, functions of (seed, step) alone, so the weights depend on the spec and, by rounding,
    on the number of threads.

    Raises:
        ValueError: If the loss is no longer finite.
    """
    alpha_bar = torch.tensor(NoiseSchedule.from_spec(spec.noise).alpha_bar)
    while state.step < spec.steps:
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(spec, state.step)
        x_t, t, eps = noisy_batch(spec, alpha_bar, state.step)
        loss = nn.functional.mse_loss(state.model(x_t, t), eps)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        _average(spec, state)
        state.step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {state.step}; lower the learning_rate")
        yield PointTrainStep(state.step, value)


def learning_rate(spec: PointTrainSpec, step: int) -> float:
    """The rate of step 0, 1, ...: a linear rise over the warm-up, then half a cosine down to 0."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    return spec.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def noisy_batch(
    spec: PointTrainSpec, alpha_bar: Tensor, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy points, timesteps and noise of one step: a function of (seed, step) alone.

    The timesteps are even over 0..T-1 up to one common shift, each as likely as with independent
    draws, and the loss varies less from batch to batch.
    """
    random = stream(spec.seed, step, TRAINING)
    n, n_train = spec.batch_size, len(alpha_bar)
    x_0 = torch.from_numpy(true_points(spec.dataset, n, random))
    places = (np.arange(n) + random.uniform()) / n
    t = torch.from_numpy((places * n_train).astype(np.int64))
    eps = torch.from_numpy(random.standard_normal((n, 2)).astype(np.float32))
    level = alpha_bar[t, None]
    return level.sqrt().float() * x_0 + (1.0 - level).sqrt().float() * eps, t, eps


def _average(spec: PointTrainSpec, state: PointTrainState) -> None:
    decay = min(spec.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.ema.parameters()), list(state.model.parameters()), 1.0 - decay
        )


def to_bytes(model: PointModel) -> bytes:
    """Returns the model's weights and tables as safetensors bytes."""
    return safetensors.torch.save(
        {name: value.contiguous() for name, value in model.state_dict().items()}
    )


def from_bytes(data: bytes, spec: PointModelSpec, noise: NoiseSpec) -> PointModel:
    """Reads a model that `to_bytes` wrote; the specs are those it was trained by.

    Raises:
        RuntimeError: If the weights do not fit the specs.
    """
    with LOADING:
        model = PointModel(spec, noise)
    model.load_state_dict(safetensors.torch.load(data))
    return model.requires_grad_(False).eval()
