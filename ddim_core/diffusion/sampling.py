"""DDIM sampling and its reverse, as iterators over steps.

A step goes from noise level t to a cleaner s < t; the last lands on clean data, s = -1, where
alpha_bar = 1. Every sampler of a `SamplerSpec` has one form,

    x_s = sqrt(alpha_bar_s) x0 + direction eps + sigma noise,

the update of `ddim_step`. Nothing here switches gradients off: call under
`torch.inference_mode()` unless they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddim_core.diffusion.noise import ImageNoise, slerp
from ddim_core.diffusion.prediction import dynamic_threshold, eps_from, x0_and_eps
from ddim_core.diffusion.schedule import CLEAN, NoiseSchedule, step_pairs, timesteps
from ddim_core.diffusion.specs import SamplerSpec, Variance

__all__ = [
    "Denoiser",
    "ImageNoise",
    "LabelledDenoiser",
    "SampleStep",
    "Step",
    "adds_noise",
    "ddim_step",
    "direction_and_sigma",
    "encode",
    "plan",
    "sample",
    "slerp",
    "x0_and_eps",
]


class Denoiser(Protocol):
    """A network: x [batch, ...] and timesteps int64 [batch] to a prediction shaped like x."""

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor: ...


class LabelledDenoiser(Protocol):
    """A network that also takes labels [batch, ...] (class numbers or text embeddings)."""

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class SampleStep:
    """What one step made.

    Attributes:
        x: Images after the step [batch, ...]: at level s when sampling, at t when encoding.
        x0_hat: The clean images predicted in this step, clipped if the spec says so.
        t: The noisier timestep of the step.
        s: The cleaner one; -1 is clean data.
    """

    x: Tensor
    x0_hat: Tensor
    t: int
    s: int


@dataclass(frozen=True, slots=True)
class Step:
    """One step from timestep t to the cleaner s < t (-1 is clean data), and their signal powers."""

    t: int
    s: int
    alpha_bar_t: float
    alpha_bar_s: float


def plan(schedule: NoiseSchedule, spec: SamplerSpec) -> list[Step]:
    """Lists the steps that `sample` takes, noisiest first: what is done, not what was asked.

    Raises:
        ValueError: As `schedule.timesteps`; or if alpha_bar is 0 at a visited timestep and the
            model predicts noise, which then says nothing about x0.
    """
    visited = timesteps(schedule.n_train, spec.steps, spec.spacing, spec.steps_offset)
    if schedule.at(visited[0]) == 0.0 and spec.prediction_type == "epsilon":
        raise ValueError(
            f"alpha_bar is 0 at timestep {visited[0]}, where x0 cannot be told from predicted "
            "noise; use prediction_type v_prediction or sample, or a spacing that starts lower"
        )
    return [Step(t, s, schedule.at(t), schedule.at(s)) for t, s in step_pairs(visited)]


def ddim_step(
    x_t: Tensor,
    eps: Tensor,
    alpha_bar_t: float,
    alpha_bar_s: float,
    eta: float,
    noise: Tensor | None,
    x0_hat: Tensor | None = None,
    variance: Variance = "eta",
) -> tuple[Tensor, Tensor]:
    """Moves images from noise level t to the cleaner level s in one DDIM update.

        x_s = sqrt(alpha_bar_s) x0 + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma noise
        sigma = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_s)

    Source: Song et al. 2021 (arXiv:2010.02502), eqs. 12 and 16; its alpha is our alpha_bar. This
    is the only step there is: `sample` repeats it.

    Args:
        x_t: Noisy images [batch, channel, height, width] (or [batch, ...]); clean pixels lie in
            [-1, 1].
        eps: Predicted noise, same shape, unit variance.
        alpha_bar_t: Signal power at t, in (0, 1); 0 only with x0_hat.
        alpha_bar_s: Signal power at s, in (alpha_bar_t, 1]; 1 on the last step.
        eta: Noise fraction in [0, 1]; 0 is deterministic, 1 is DDPM-like.
        noise: Standard normal draw, same shape; ignored (and may be None) when eta is 0.
        x0_hat: Predicted clean images where they are not just those that eps implies: clipped,
            or predicted themselves. By default (x_t - sqrt(1 - alpha_bar_t) eps)
            / sqrt(alpha_bar_t).
        variance: `sigma_hat` adds more noise, sigma^2 = 1 - alpha_bar_t / alpha_bar_s (none on
            the last step), to the mean of eta = 1, the mean of the DDPM posterior (Ho et al.
            2020, eq. 7; Song et al. 2021, section 5.1; the official code's `ddpm_noisy`).

    Returns:
        (x_s, x0_hat), shaped like x_t.

    Raises:
        ValueError: If the step would not remove noise, alpha_bar_t is 0 (then eps says nothing
            about x0), eta lies outside [0, 1], or shapes differ.
    """
    _require_step(alpha_bar_t, alpha_bar_s, eta, x0_hat is not None)
    _require_shape("eps", eps, x_t)
    if x0_hat is None:
        x0_hat, eps = x0_and_eps(eps, x_t, alpha_bar_t, "epsilon")
    direction, sigma = direction_and_sigma(alpha_bar_t, alpha_bar_s, eta, variance)
    x_s = torch.mul(x0_hat, alpha_bar_s**0.5)
    if direction > 0.0:
        x_s.add_(eps, alpha=direction)
    if sigma > 0.0:
        if noise is None:
            raise ValueError(f"the step adds noise of std {sigma:.3g}; give a draw for it")
        _require_shape("noise", noise, x_t)
        x_s.add_(noise, alpha=sigma)
    return x_s, x0_hat


def direction_and_sigma(
    alpha_bar_t: float, alpha_bar_s: float, eta: float, variance: Variance = "eta"
) -> tuple[float, float]:
    """Returns the weights of eps and of the fresh noise in `ddim_step`; it has the formulas."""
    removed = 1.0 - alpha_bar_t / alpha_bar_s
    noise_s = 1.0 - alpha_bar_s
    # sigma^2 / (1 - alpha_bar_s). Never above 1, also after rounding: alpha_bar_t / alpha_bar_s
    # does not round below alpha_bar_t. So the root below needs no clamp, unlike that of
    # 1 - alpha_bar_s - sigma^2 as written, which diffusers lets round to NaN.
    share = (1.0 if variance == "sigma_hat" else eta**2) * removed / (1.0 - alpha_bar_t)
    direction = (noise_s * (1.0 - share)) ** 0.5
    if variance == "sigma_hat":
        return direction, removed**0.5 if noise_s > 0.0 else 0.0
    return direction, (noise_s * share) ** 0.5


def _require_step(alpha_bar_t: float, alpha_bar_s: float, eta: float, x0_is_known: bool) -> None:
    senseless = alpha_bar_t == 0.0 and not x0_is_known
    if senseless or not 0.0 <= alpha_bar_t < alpha_bar_s <= 1.0:
        raise ValueError(
            f"the step goes from alpha_bar {alpha_bar_t} to {alpha_bar_s}; it must rise, "
            "0 < alpha_bar_t < alpha_bar_s <= 1 (at 0, eps says nothing about x0)"
        )
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}; it must lie in [0, 1]")


def _require_shape(name: str, value: Tensor, like: Tensor) -> None:
    if value.shape != like.shape:  # broadcasting would go on with a wrong result
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; it must be that of x, {tuple(like.shape)}"
        )


def _denoise(
    model: Denoiser, spec: SamplerSpec, x: Tensor, t: int, alpha_bar: float
) -> tuple[Tensor, Tensor]:
    """Asks the model about x at timestep t: (x0, eps), constrained as the spec says."""
    prediction = model(x, torch.full((len(x),), t, dtype=torch.int64, device=x.device))
    _require_shape("the model's output", prediction, x)
    x0, eps = x0_and_eps(prediction.to(x.dtype), x, alpha_bar, spec.prediction_type)
    if spec.dynamic_threshold is not None:
        x0 = dynamic_threshold(x0, spec.dynamic_threshold, spec.clip_range)
    elif spec.clip:
        x0 = x0.clamp(-spec.clip_range, spec.clip_range)
    else:
        return x0, eps  # eps already agrees with x0
    if spec.rederive_eps or spec.variance == "sigma_hat":
        eps = eps_from(x0, x, alpha_bar)
    return x0, eps


def _require_floating(name: str, x: Tensor) -> None:
    if not x.is_floating_point() or x.ndim < 1:
        raise ValueError(
            f"{name} is {x.dtype} of shape {tuple(x.shape)}; it must be floating, [batch, ...]"
        )


def sample(
    model: Denoiser,
    schedule: NoiseSchedule,
    spec: SamplerSpec,
    x_T: Tensor,
    noise: Callable[[int], Tensor] | None = None,
) -> Iterator[SampleStep]:
    """Samples images step by step from noise.

    The steps are those of `plan`; with eta = 0 this is also the decoder of `encode`. Guidance is
    the model's matter: wrap it in `guided` with spec.guidance_scale. All checks that need no
    model are made before the first model call, when `sample` is called.

    Args:
        model: Predicts what spec.prediction_type says; its output is cast to the dtype of x_T.
        schedule: The training noise schedule.
        spec: The sampler setting.
        x_T: Standard normal noise, floating [batch, ...]; its dtype is that of the samples.
        noise: noise(i) is step i's standard normal draw, i = 0, 1, ... from the noisiest, shaped
            and placed like x_T; called only where the step adds noise. None if none does.

    Returns:
        An iterator of one record a step; the last has s = -1, and its x are the images.

    Raises:
        ValueError: As `plan`; if x_T is not floating; if a step needs noise and there is none; in
            the loop, if the model's output or a draw is not shaped like x_T.
    """
    _require_floating("x_T", x_T)
    steps = plan(schedule, spec)
    if noise is None and adds_noise(spec) and len(steps) > 1:
        raise ValueError(f"variance {spec.variance}, eta {spec.eta} add noise; give noise(i)")
    return _sample(model, steps, spec, x_T, noise)


def _sample(
    model: Denoiser,
    steps: Sequence[Step],
    spec: SamplerSpec,
    x: Tensor,
    noise: Callable[[int], Tensor] | None,
) -> Iterator[SampleStep]:
    noisy = noise if adds_noise(spec) else None
    for i, step in enumerate(steps):
        x0, eps = _denoise(model, spec, x, step.t, step.alpha_bar_t)
        draw = noisy(i) if noisy is not None and step.s != CLEAN else None
        x, x0 = ddim_step(
            x, eps, step.alpha_bar_t, step.alpha_bar_s, spec.eta, draw, x0, spec.variance
        )
        yield SampleStep(x, x0, step.t, step.s)


def adds_noise(spec: SamplerSpec) -> bool:
    """Tells whether a sampler draws fresh noise on the way (in its last step it never does)."""
    return spec.eta > 0.0 or spec.variance == "sigma_hat"


def encode(
    model: Denoiser, schedule: NoiseSchedule, spec: SamplerSpec, x_0: Tensor
) -> Iterator[SampleStep]:
    """Runs the ODE of `sample` at eta = 0 backwards, from clean images to their noise.

        x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps,   x0, eps predicted at (x_s, s)

    Source: Song et al. 2021 (arXiv:2010.02502), eqs. 13 and 14: an Euler step of the ODE in the
    other direction, so that sampling the last x returns x_0 up to an error that falls with S.
    Clean data lie below every timestep a model knows: the first step asks it at timestep 0.

    Args:
        model, schedule, spec: As in `sample`; the same steps are taken, from clean to noisy.
        x_0: Clean images, floating [batch, ...]; pixels in [-1, 1].

    Returns:
        An iterator of one record a step, cleanest first: x lies at t; the last x is x_T.

    Raises:
        ValueError: As `plan`; if the spec adds noise, which no encoding can undo.
    """
    _require_floating("x_0", x_0)
    if spec.eta > 0.0:
        raise ValueError(f"eta is {spec.eta}; only eta 0 with variance 'eta' can be run backwards")
    return _encode(model, schedule, plan(schedule, spec), spec, x_0)


def _encode(
    model: Denoiser, schedule: NoiseSchedule, steps: Sequence[Step], spec: SamplerSpec, x: Tensor
) -> Iterator[SampleStep]:
    for step in reversed(steps):
        asked_at = max(step.s, 0)
        x0, eps = _denoise(model, spec, x, asked_at, schedule.at(asked_at))
        if step.s == CLEAN:
            x0 = x
        x = torch.mul(x0, step.alpha_bar_t**0.5).add_(eps, alpha=(1.0 - step.alpha_bar_t) ** 0.5)
        yield SampleStep(x, x0, step.t, step.s)
