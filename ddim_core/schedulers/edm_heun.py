"""Heun's sampler of EDM, with churn: Algorithm 2 of Karras et al. 2022 (arXiv:2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ddim_core.schedulers.configured import Configured

MOST_CHURN = math.sqrt(2.0) - 1.0
WITHOUT_DOUBLE = ("mps",)  # devices that have no float64


class EDMHeunScheduler(Configured):
    """Heun's steps from sigma_max down to 0, each from a level that churn has raised.

        t_i   = (sigma_max^(1/rho) + i / (S - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho
        gamma = min(S_churn / S, sqrt(2) - 1) where S_min <= t_i <= S_max, else 0
        t^    = (1 + gamma) t_i,   x^ = x_i + sqrt(t^2 - t_i^2) S_noise eps
        d     = (x^ - D(x^, t^)) / t^,   x' = x^ + (t_(i+1) - t^) d
        x_(i+1) = x^ + (t_(i+1) - t^) (d + d') / 2,   d' = (x' - D(x', t_(i+1))) / t_(i+1)

    and x' itself in the last step, to 0. Source: Karras et al. 2022, Algorithm 2 and equation 5;
    the images are float64 on the way, the network's input and D float32, as in NVlabs' code.
    Unlike diffusers' EDM schedulers it starts at noise of std sigma_max.

    Args:
        sigma_min, sigma_max: Noise levels of the last step but one and of the first.
        sigma_data: Of the network's preconditioning: D = c_skip x + c_out F, table 1 there.
        rho: How much shorter steps are at low noise.
        S_churn, S_min, S_max, S_noise: How much noise is added on the way, between which levels,
            and its standard deviation.
        prediction_type: `v_prediction` where the network answers -F, as diffusers calls it.
        levels: The only noise levels that the network knows, which all are rounded to (iDDPM);
            None for any.
    """

    order = 2

    def __init__(
        self, sigma_min: float = 0.002, sigma_max: float = 80.0, sigma_data: float = 0.5,
        rho: float = 7.0, S_churn: float = 0.0, S_min: float = 0.0, S_max: float = math.inf,
        S_noise: float = 1.0,
        prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
        levels: Sequence[float] | None = None,
    ) -> None:  # fmt: skip
        self._keep(
            sigma_min=sigma_min, sigma_max=sigma_max, sigma_data=sigma_data, rho=rho,
            S_churn=S_churn, S_min=S_min, S_max=S_max, S_noise=S_noise,
            prediction_type=prediction_type, levels=levels,
        )  # fmt: skip
        self._sign = -1.0 if prediction_type == "v_prediction" else 1.0
        self._levels = None if levels is None else torch.tensor(levels, dtype=torch.float64)
        self._t, self._t_hat = torch.zeros(0), torch.zeros(0)
        self.timesteps, self.sigmas = torch.zeros(0), torch.zeros(0)

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the noise that it starts from."""
        return float(self._t[0]) if len(self._t) else float(self.config.sigma_max)

    def set_timesteps(self, num_inference_steps: int, device: str | None = None) -> None:
        """Makes it ready: `sigmas` are the levels at which the network is asked, in order, and 0;
        `timesteps` what it is told there, log(sigma) / 4."""
        c, steps = self.config, num_inference_steps
        first, last = (end ** (1.0 / c.rho) for end in (c.sigma_max, c.sigma_min))
        ramp = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
        t = self._known((first + ramp * (last - first)) ** c.rho)
        gamma = min(c.S_churn / steps, MOST_CHURN)
        churned = (t >= c.S_min) & (t <= c.S_max)
        self._t = torch.cat([t, torch.zeros(1, dtype=torch.float64)])
        self._t_hat = self._known(t + torch.where(churned, gamma, 0.0) * t)
        asked = torch.stack([self._t_hat, self._t[1:]], 1).flatten()
        self.sigmas = asked.to(torch.float32)
        self.timesteps = (self.sigmas[:-1].log() / 4.0).to(device)

    def _known(self, sigma: Tensor) -> Tensor:
        if self._levels is None:
            return sigma
        return self._levels[(sigma[:, None] - self._levels).abs().argmin(1)]

    def draw(
        self,
        model: Callable[[Tensor, Tensor], Tensor],
        x_T: Tensor,
        streams: Sequence[torch.Generator] = (),
    ) -> tuple[Tensor, int]:
        """Draws images from noise.

        Args:
            model: Predicts F for c_in x [batch, ...], float32, and log(sigma) / 4 [batch], which
                lies on the CPU.
            x_T: Standard normal noise, floating [batch, ...].
            streams: The images' own streams, where there is churn: each is drawn from once a step,
                whether that step adds noise or not.

        Returns:
            The images, in the format of x_T, and how often the network was asked.

        Raises:
            ValueError: If there is churn and not a stream for each image.
        """
        if self.config.S_churn > 0.0 and len(streams) != len(x_T):
            raise ValueError(
                f"{len(x_T)} images have {len(streams)} streams; S_churn is "
                f"{self.config.S_churn:g}, which draws noise on the way, each image's from its own"
            )
        asked = 0

        def slope(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal asked
            asked += 1
            return (x - self._denoised(model, x, sigma)) / sigma

        exact = torch.float32 if x_T.device.type in WITHOUT_DOUBLE else torch.float64
        t, t_hat = self._t.to(exact), self._t_hat.to(exact)  # on the CPU: no one asks a card
        x = x_T.to(exact) * t[0]
        for i, (here, there) in enumerate(pairwise(t)):
            hat = t_hat[i]
            if self.config.S_churn > 0.0:
                scale = (hat**2 - here**2).clamp(min=0.0).sqrt() * self.config.S_noise
                x = x + scale * _noise(x, streams)
            d = slope(x, hat)
            if i == len(t_hat) - 1:
                x = x + (there - hat) * d
            else:
                d_there = slope(x + (there - hat) * d, there)
                x = x + (there - hat) * (0.5 * d + 0.5 * d_there)
        return x.to(x_T.dtype), asked

    def _denoised(
        self, model: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor
    ) -> Tensor:
        """D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4), in float32."""
        x, sigma, data = x.to(torch.float32), sigma.to(torch.float32), self.config.sigma_data
        total = sigma**2 + data**2
        said = model(x * (1.0 / total.sqrt()), (sigma.log() / 4.0).expand(len(x)))
        if said.shape != x.shape:
            raise ValueError(
                f"the network answers with shape {tuple(said.shape)} to {tuple(x.shape)}; they "
                "must be the same"
            )
        return data**2 / total * x + self._sign * sigma * data / total.sqrt() * said


def _noise(x: Tensor, streams: Sequence[torch.Generator]) -> Tensor:
    drawn = [torch.randn(x.shape[1:], generator=own, dtype=torch.float64) for own in streams]
    return torch.stack(drawn).to(x)
