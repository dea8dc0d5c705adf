"""How latents are made noisy, and what the network shall answer: by betas, or along a flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.training.batches import Group

if TYPE_CHECKING:
    import diffusers
    from diffusers import training_utils
else:
    diffusers = late("diffusers")
    training_utils = late("diffusers.training_utils")


class Noising(Protocol):
    """The base's noise schedule, as a training goes through it.

    Attributes:
        n_train: How many places it has; `Group.timesteps` are below.
    """

    n_train: int

    def shown(
        self, spec: LoraSpec, latents: Tensor, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns z_t [n, c, h, w], t [n], the target like z_t, and each image's weight [n]."""


def noising_of(
    scheduler: diffusers.DDPMScheduler | diffusers.FlowMatchEulerDiscreteScheduler,
) -> Noising:
    """Returns what a base's own schedule does to latents."""
    if hasattr(scheduler, "alphas_cumprod"):
        return ByBetas(scheduler)
    return AlongFlow(scheduler)


class ByBetas:
    """z_t = sqrt(alpha_bar_t) z + sqrt(1 - alpha_bar_t) eps.

    The target is eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z, as the base predicts.
    """

    def __init__(self, scheduler: diffusers.DDPMScheduler) -> None:
        self._scheduler = scheduler
        self.n_train = len(scheduler.alphas_cumprod)

    def shown(
        self, spec: LoraSpec, latents: Tensor, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        t = group.timesteps
        noise = group.noise + spec.noise_offset * group.offset
        noisy = self._scheduler.add_noise(latents, noise, t)
        target = noise
        if self._scheduler.config.prediction_type == "v_prediction":
            target = self._scheduler.get_velocity(latents, noise, t)
        return noisy, t, target, self._weights(spec, group)

    def _weights(self, spec: LoraSpec, group: Group) -> Tensor:
        weights = group.weights
        if spec.snr_gamma is None:
            return weights
        alpha_bar = self._scheduler.alphas_cumprod[group.timesteps]
        snr = alpha_bar / (1.0 - alpha_bar)
        capped = snr.clamp(max=spec.snr_gamma)
        if self._scheduler.config.prediction_type == "v_prediction":
            return weights * capped / (snr + 1.0)
        return weights * torch.where(snr > 0.0, capped / snr, 1.0)  # the limit at snr = 0 is 1


class AlongFlow:
    """z_t = (1 - sigma) z + sigma eps; the target is the velocity eps - z.

    Source: diffusers' `train_dreambooth_lora_sd3.py` and `train_dreambooth_lora_flux.py`; Esser et
    al. 2024 (arXiv:2403.03206), section 3.1. With `precondition` the error is that of the clean
    image, z - (z_t - sigma v) = -sigma (eps - z - v): sigma^2 times the velocity's.
    """

    def __init__(self, scheduler: diffusers.FlowMatchEulerDiscreteScheduler) -> None:
        self._sigmas, self._timesteps = scheduler.sigmas, scheduler.timesteps
        self.n_train = len(scheduler.timesteps)

    def shown(
        self, spec: LoraSpec, latents: Tensor, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sigma = self._sigmas[group.timesteps]
        wide = sigma[:, None, None, None]
        noisy = (1.0 - wide) * latents + wide * group.noise
        weights = training_utils.compute_loss_weighting_for_sd3(spec.weighting, sigma)
        if spec.precondition:
            weights = weights * sigma.square()
        target = group.noise - latents
        return noisy, self._timesteps[group.timesteps], target, group.weights * weights
