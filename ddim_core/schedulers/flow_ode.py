"""The ODE of a flow along any path by Euler's method, as SiT samples its curved ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ddim_core.schedulers.configured import Configured
from ddim_core.schedulers.flow_sde import Path


class FlowODEScheduler(Configured):
    """Even steps of a flow's ODE, from noise at sigma = 1 to `last_sigma`.

        x' = x + (sigma' - sigma) v

    with v the network's velocity (noise less image), whatever path it was trained along.
    Source: Ma et al. 2024 (SiT, arXiv:2401.08740), equation 2 and its transport/integrators.py.

    Args:
        num_train_timesteps: A timestep is sigma times this.
        path: That path, as `FlowSDEScheduler` has them.
        last_sigma: Where it ends: 0, or SiT's `sample_eps`, 0.001 of the path `vp`.
        prediction_type: What the network predicts, by diffusers' name.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self, num_train_timesteps: int = 1000, path: Path = "linear", last_sigma: float = 0.0,
        prediction_type: Literal["flow_prediction"] = "flow_prediction",
    ) -> None:  # fmt: skip
        self._keep(
            num_train_timesteps=num_train_timesteps, path=path, last_sigma=last_sigma,
            prediction_type=prediction_type,
        )  # fmt: skip
        self.timesteps, self.sigmas = torch.zeros(0), torch.zeros(1)
        self._done = 0

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | None = None,
        sigmas: Sequence[float] | None = None,
    ) -> None:
        """Makes it ready: S + 1 levels evenly from 1 to `last_sigma`, or those listed and that."""
        last = self.config.last_sigma
        if sigmas is None:
            levels = torch.linspace(1.0, last, (num_inference_steps or 1) + 1)
        else:
            levels = torch.tensor([*sigmas, last])
        self.sigmas = levels.float()
        self.timesteps = (self.sigmas[:-1] * self.config.num_train_timesteps).to(device)
        self._done = 0

    def step(
        self, model_output: Tensor, timestep: Tensor | float, sample: Tensor,
        return_dict: bool = False,
    ) -> tuple[Tensor]:  # fmt: skip
        """Takes the next step.

        Args:
            model_output: The velocity at `sample` [batch, ...].
            timestep: Where it was asked; steps are taken in order.
            sample: x.
            return_dict: Of diffusers' schedulers; always False.

        Returns:
            x', alone in a tuple.
        """
        sigma, there = (float(level) for level in self.sigmas[self._done : self._done + 2])
        self._done += 1
        return (sample + (there - sigma) * model_output,)
