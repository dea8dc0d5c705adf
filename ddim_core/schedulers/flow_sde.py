"""The reverse SDE of a flow by Euler-Maruyama, as SiT and REPA sample it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.schedulers.configured import Configured

if TYPE_CHECKING:
    from diffusers.utils import torch_utils
else:
    torch_utils = late("diffusers.utils.torch_utils")

Form = Literal["sigma", "constant", "decreasing", "increasing-decreasing"]


class FlowSDEScheduler(Configured):
    """Steps of a flow's reverse SDE, from noise at sigma = 1 to images at 0.

        x' = x + (sigma' - sigma) (v - w s) + sqrt(2 w (sigma - sigma')) z
        s  = -(x + (1 - sigma) v) / sigma,   z standard normal

    with v the network's velocity (noise less image), s the score that follows from it, and w the
    diffusion, any function of sigma: `sigma` is norm sigma (SiT's default, REPA's only one),
    `constant` norm, `decreasing` (norm cos(pi t) + 1)^2 / 4 and `increasing-decreasing` norm
    sin(pi t)^2 with t = 1 - sigma. The last step, from `last_step_size` to 0, adds no noise.
    Source: Ma et al. 2024 (SiT, arXiv:2401.08740), equation 4 and its transport/integrators.py,
    where w is half of the paper's; samplers.py of REPA.

    Args:
        num_train_timesteps: A timestep is sigma times this.
        shift: sigma becomes shift sigma / (1 + (shift - 1) sigma).
        diffusion_form, diffusion_norm: w.
        last_step_size: sigma of the last step.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 1.0, diffusion_form: Form = "sigma",
        diffusion_norm: float = 1.0, last_step_size: float = 0.04,
    ) -> None:  # fmt: skip
        self._keep(
            num_train_timesteps=num_train_timesteps, shift=shift, diffusion_form=diffusion_form,
            diffusion_norm=diffusion_norm, last_step_size=last_step_size,
        )  # fmt: skip
        self.timesteps, self.sigmas = torch.zeros(0), torch.zeros(1)
        self._done = 0

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Makes it ready: S levels evenly from 1 to `last_step_size`, or those listed; then 0.

        Without dynamic shifting, which it has not, `mu` plays no part, as in diffusers' own.
        """
        c = self.config
        if sigmas is None:
            sigma = torch.linspace(1.0, c.last_step_size, num_inference_steps or 1).double()
        else:
            sigma = torch.tensor(list(sigmas), dtype=torch.float64)
        sigma = c.shift * sigma / (1.0 + (c.shift - 1.0) * sigma)
        self.sigmas = torch.cat([sigma, torch.zeros(1, dtype=torch.float64)]).float()
        self.timesteps = (self.sigmas[:-1] * c.num_train_timesteps).to(device)
        self._done = 0

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Makes this step the next one, as pipelines tell it."""
        self._done = begin_index

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: Sequence[torch.Generator] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Takes the next step.

        Args:
            model_output: The velocity at `sample` [batch, ...].
            timestep: Where it was asked; steps are taken in order.
            sample: x.
            generator: The images' own streams, one each; the last step draws none.
            return_dict: Of diffusers' schedulers; always False.

        Returns:
            x', alone in a tuple.
        """
        sigma, there = (float(level) for level in self.sigmas[self._done : self._done + 2])
        self._done += 1
        score = -(sample + (1.0 - sigma) * model_output) / sigma
        w = self._diffusion(sigma)
        x = sample + (there - sigma) * (model_output - w * score)
        if there > 0.0:
            noise = torch_utils.randn_tensor(
                sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
            )
            x = x + math.sqrt(2.0 * w * (sigma - there)) * noise
        return (x,)

    def _diffusion(self, sigma: float) -> float:
        norm, t = self.config.diffusion_norm, 1.0 - sigma
        forms = {
            "sigma": norm * sigma,
            "constant": norm,
            "decreasing": 0.25 * (norm * math.cos(math.pi * t) + 1.0) ** 2,
            "increasing-decreasing": norm * math.sin(math.pi * t) ** 2,
        }
        return float(forms[self.config.diffusion_form])
