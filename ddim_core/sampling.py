"""DDIM sampling and its reverse, as iterators over steps.

A step goes from noise level t to a cleaner s < t; the last lands on clean data, s = -1, where
alpha_bar = 1. Every sampler of a `SamplerSpec` has one form,

    x_s = sqrt(alpha_bar_s) x0 + direction eps + sigma noise,

with numbers that are fixed before the loop (see `Step`). Nothing here switches gradients off:
call under `torch.inference_mode()` unless they are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ddim_core.noise import ImageNoise, slerp
from ddim_core.schedule import CLEAN, NoiseSchedule, step_pairs, timesteps
from ddim_core.specs import PredictionType, SamplerSpec, Variance

__all__ = [
    "Denoiser",
    "ImageNoise",
    "LabelledDenoiser",
    "SampleStep",
    "Step",
    "ddim_step",
    "encode",
    "guided",
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
    """The numbers of one step from t to s.

    Attributes:
        t, s: Timesteps, s < t; -1 is clean data.
        alpha_bar_t, alpha_bar_s: Signal powers, alpha_bar_t < alpha_bar_s.
        signal: Weight of x0, sqrt(alpha_bar_s).
        direction: Weight of eps.
        sigma: Weight of the fresh noise; 0 on the last step.
    """

    t: int
    s: int
    alpha_bar_t: float
    alpha_bar_s: float
    signal: float
    direction: float
    sigma: float


def _step(
    t: int, s: int, alpha_bar_t: float, alpha_bar_s: float, eta: float, variance: Variance
) -> Step:
    """Works out a step; `direction` is sqrt(1 - alpha_bar_s - sigma^2), sigma that of `eta`.

    With sigma-hat, direction is that of eta = 1, which makes the first two terms the mean of the
    DDPM posterior (Ho et al. 2020, eq. 7), and only the noise is larger: variance beta_t =
    1 - alpha_bar_t / alpha_bar_s (Song et al. 2021, section 5.1), none on the last step.
    """
    removed = 1.0 - alpha_bar_t / alpha_bar_s
    noise_s = 1.0 - alpha_bar_s
    # sigma^2 / (1 - alpha_bar_s) <= 1; rounding may pass it where alpha_bar_t is near 0.
    share = min(eta**2 * removed / (1.0 - alpha_bar_t), 1.0)
    if variance == "sigma_hat":
        sigma = removed**0.5 if noise_s > 0.0 else 0.0
    else:
        sigma = (noise_s * share) ** 0.5
    return Step(
        t,
        s,
        alpha_bar_t,
        alpha_bar_s,
        signal=alpha_bar_s**0.5,
        direction=(noise_s * (1.0 - share)) ** 0.5,
        sigma=sigma,
    )


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
    return [
        _step(t, s, schedule.at(t), schedule.at(s), spec.eta, spec.variance)
        for t, s in step_pairs(visited)
    ]


def ddim_step(
    x_t: Tensor,
    eps: Tensor,
    alpha_bar_t: float,
    alpha_bar_s: float,
    eta: float,
    noise: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Moves images from noise level t to the cleaner level s in one DDIM update.

        x_s = sqrt(alpha_bar_s) x0 + sqrt(1 - alpha_bar_s - sigma^2) eps + sigma noise
        sigma = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) sqrt(1 - alpha_bar_t / alpha_bar_s)

    Source: Song et al. 2021 (arXiv:2010.02502), eqs. 12 and 16; its alpha is our alpha_bar.

    Args:
        x_t: Noisy images [batch, channel, height, width] (or [batch, ...]); clean pixels lie in
            [-1, 1].
        eps: Predicted noise, same shape, unit variance.
        alpha_bar_t: Signal power at t, in (0, 1).
        alpha_bar_s: Signal power at s, in (alpha_bar_t, 1]; 1 on the last step.
        eta: Noise fraction in [0, 1]; 0 is deterministic, 1 is DDPM-like.
        noise: Standard normal draw, same shape; ignored (and may be None) when eta is 0.

    Returns:
        (x_s, x0_hat), shaped like x_t; x0_hat = (x_t - sqrt(1 - alpha_bar_t) eps)
        / sqrt(alpha_bar_t).

    Raises:
        ValueError: If the step would not remove noise, alpha_bar_t is 0 (then eps says nothing
            about x0), eta lies outside [0, 1], or shapes differ.
    """
    if not 0.0 < alpha_bar_t < alpha_bar_s <= 1.0:
        raise ValueError(
            f"the step goes from alpha_bar {alpha_bar_t} to {alpha_bar_s}; it must rise, "
            "0 < alpha_bar_t < alpha_bar_s <= 1 (at 0, noise says nothing about x0)"
        )
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}; it must lie in [0, 1]")
    step = _step(0, CLEAN, float(alpha_bar_t), float(alpha_bar_s), float(eta), "eta")
    _require_shape("eps", eps, x_t)
    x0, eps = x0_and_eps(eps, x_t, step.alpha_bar_t, "epsilon")
    return _land(step, x0, eps, noise), x0


def _land(step: Step, x0: Tensor, eps: Tensor, noise: Tensor | None) -> Tensor:
    x_s = torch.mul(x0, step.signal)
    if step.direction > 0.0:
        x_s.add_(eps, alpha=step.direction)
    if step.sigma > 0.0:
        if noise is None:
            raise ValueError(f"the step adds noise of std {step.sigma:.3g}; give a draw for it")
        _require_shape("noise", noise, x_s)
        x_s.add_(noise, alpha=step.sigma)
    return x_s


def _require_shape(name: str, value: Tensor, like: Tensor) -> None:
    if value.shape != like.shape:  # broadcasting would go on with a wrong result
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}; it must be that of x, {tuple(like.shape)}"
        )


def x0_and_eps(
    prediction: Tensor, x_t: Tensor, alpha_bar_t: float, prediction_type: PredictionType
) -> tuple[Tensor, Tensor]:
    """Reads a network's output as predicted clean images and predicted noise.

        x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps
        v   = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x0

    Source: Salimans and Ho 2022 (arXiv:2202.00512), appendix D, for v.

    Args:
        prediction: eps, x0 (`sample`) or v, shaped like x_t.
        x_t: Noisy images [batch, ...].
        alpha_bar_t: Signal power of x_t in [0, 1); above 0 for `epsilon`.
        prediction_type: What the prediction is.

    Returns:
        (x0, eps), shaped like x_t.
    """
    signal, noise = alpha_bar_t**0.5, (1.0 - alpha_bar_t) ** 0.5
    match prediction_type:
        case "epsilon":
            return torch.mul(x_t, 1.0 / signal).sub_(prediction, alpha=noise / signal), prediction
        case "sample":
            return prediction, _eps_from(prediction, x_t, alpha_bar_t)
        case "v_prediction":
            x0 = torch.mul(x_t, signal).sub_(prediction, alpha=noise)
            return x0, torch.mul(x_t, noise).add_(prediction, alpha=signal)


def _eps_from(x0: Tensor, x_t: Tensor, alpha_bar_t: float) -> Tensor:
    signal, noise = alpha_bar_t**0.5, (1.0 - alpha_bar_t) ** 0.5
    return torch.mul(x_t, 1.0 / noise).sub_(x0, alpha=signal / noise)


def _threshold(x0: Tensor, quantile: float, largest: float) -> Tensor:
    """Dynamic thresholding per image: clamp to [-q, q] and divide by q, 1 <= q <= largest.

    q is the quantile of |x0| over one image, linear between order statistics. Source: Saharia et
    al. 2022 (arXiv:2205.11487), section 2.3; largest is diffusers' sample_max_value, and wins
    below 1 as it does there.
    """
    flat = x0.reshape(len(x0), -1)
    # Sorted here because torch.quantile refuses more than 2^24 numbers.
    ordered = flat.abs().sort(dim=1).values
    rank = quantile * (ordered.shape[1] - 1)
    below = int(rank)
    above = min(below + 1, ordered.shape[1] - 1)
    q = torch.lerp(ordered[:, below], ordered[:, above], rank - below)
    q = q.clamp(1.0, largest).unsqueeze(1)
    return (flat.clamp(-q, q) / q).reshape(x0.shape)


def _denoise(
    model: Denoiser, spec: SamplerSpec, x: Tensor, t: int, alpha_bar: float
) -> tuple[Tensor, Tensor]:
    """Asks the model about x at timestep t: (x0, eps), constrained as the spec says."""
    prediction = model(x, torch.full((len(x),), t, dtype=torch.int64, device=x.device))
    _require_shape("the model's output", prediction, x)
    x0, eps = x0_and_eps(prediction.to(x.dtype), x, alpha_bar, spec.prediction_type)
    if spec.dynamic_threshold is not None:
        x0 = _threshold(x0, spec.dynamic_threshold, spec.clip_range)
    elif spec.clip:
        x0 = x0.clamp(-spec.clip_range, spec.clip_range)
    else:
        return x0, eps  # eps already agrees with x0
    if spec.rederive_eps or spec.variance == "sigma_hat":
        eps = _eps_from(x0, x, alpha_bar)
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
    if noise is None and any(step.sigma > 0.0 for step in steps):
        raise ValueError(f"variance {spec.variance}, eta {spec.eta} add noise; give noise(i)")
    return _sample(model, steps, spec, x_T, noise)


def _sample(
    model: Denoiser,
    steps: Sequence[Step],
    spec: SamplerSpec,
    x: Tensor,
    noise: Callable[[int], Tensor] | None,
) -> Iterator[SampleStep]:
    for i, step in enumerate(steps):
        x0, eps = _denoise(model, spec, x, step.t, step.alpha_bar_t)
        draw = noise(i) if noise is not None and step.sigma > 0.0 else None
        x = _land(step, x0, eps, draw)
        yield SampleStep(x, x0, step.t, step.s)


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


def guided(
    model: LabelledDenoiser, labels: Tensor, null_label: Tensor | int, scale: float
) -> Denoiser:
    """Turns a labelled model into one that follows its labels more (or less) closely.

        prediction = prediction_u + g (prediction_c - prediction_u)

    Source: classifier-free guidance, Ho and Salimans 2022 (arXiv:2207.12598), in the convention
    where g = 1 is no guidance (their w is g - 1); it holds for eps, x0 and v alike. Both halves
    are one doubled batch; at g = 1 (g = 0) only the conditional (unconditional) half is run.

    Args:
        model: Called as model(x, t, labels).
        labels: [batch, ...], one for each image.
        null_label: The label of "no label": a class number, or a tensor shaped like one label.
        scale: g.
    """
    null = torch.as_tensor(null_label, dtype=labels.dtype, device=labels.device).expand_as(labels)
    if scale in (0.0, 1.0):
        chosen = labels if scale == 1.0 else null
        return lambda x, t: model(x, t, chosen)
    both = torch.cat([null, labels])

    def guided_model(x: Tensor, t: Tensor, /) -> Tensor:
        unlabelled, labelled = model(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        return torch.lerp(unlabelled, labelled, scale)

    return guided_model
