"""What a network's output says: the clean images and the noise, constrained if that is asked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import PredictionType


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
            return prediction, eps_from(prediction, x_t, alpha_bar_t)
        case "v_prediction":
            x0 = torch.mul(x_t, signal).sub_(prediction, alpha=noise)
            return x0, torch.mul(x_t, noise).add_(prediction, alpha=signal)


def eps_from(x0: Tensor, x_t: Tensor, alpha_bar_t: float) -> Tensor:
    """Returns the noise that x_t holds if its clean images are x0; alpha_bar_t in [0, 1)."""
    signal, noise = alpha_bar_t**0.5, (1.0 - alpha_bar_t) ** 0.5
    return torch.mul(x_t, 1.0 / noise).sub_(x0, alpha=signal / noise)


def dynamic_threshold(x0: Tensor, quantile: float, largest: float) -> Tensor:
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


class LastGuess:
    """A network that is told, beside the noisy images of one run, its own last guess of them.

    The guess is x0, clipped to [-1, 1]; in the first call it is 0. Source: Chen et al. 2022
    (self-conditioning, arXiv:2208.04202), as denoising-diffusion-pytorch draws.

    Args:
        network: Predicts for [guess, noisy] side by side, [batch, 2 channel, ...].
        schedule: Of its timesteps.
        prediction_type: What its first channels predict.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        schedule: NoiseSchedule,
        prediction_type: PredictionType,
    ) -> None:
        self._network, self._schedule, self._kind = network, schedule, prediction_type
        self._guess: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor, /) -> Tensor:
        guess = torch.zeros_like(x) if self._guess is None else self._guess.to(x)
        said = self._network(torch.cat([guess, x], 1), t)
        power = 1.0 / (1.0 + self._schedule.level(float(t[0])) ** 2)
        self._guess = x0_and_eps(said[:, : x.shape[1]], x, power, self._kind)[0].clamp(-1.0, 1.0)
        return said
