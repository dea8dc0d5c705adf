"""The scheduler of diffusers that a network was trained for, as its folder says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddim_core.common.late import late
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.specs import Objective

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")


def scheduler_trained(
    noise: NoiseSpec, objective: Objective
) -> diffusers.DDPMScheduler | diffusers.FlowMatchEulerDiscreteScheduler:
    """Returns the scheduler of diffusers that belongs to what a network was trained on."""
    if objective == "flow":
        return diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=noise.n_train)
    scheduler = noise_scheduler(noise)
    if objective == "v":
        return diffusers.DDPMScheduler.from_config(scheduler.config, prediction_type="v_prediction")
    return scheduler


def noise_scheduler(noise: NoiseSpec) -> diffusers.DDPMScheduler:
    """Returns the scheduler of diffusers that has a schedule."""
    shapes = {"linear": "linear", "quad": "scaled_linear", "cosine": "squaredcos_cap_v2"}
    if noise.kind in shapes:
        return diffusers.DDPMScheduler(
            num_train_timesteps=noise.n_train,
            beta_schedule=shapes[noise.kind],
            beta_start=noise.beta_start,
            beta_end=noise.beta_end,
            rescale_betas_zero_snr=noise.zero_snr,
        )
    alpha_bar = NoiseSchedule.from_spec(noise).alpha_bar
    previous = [1.0, *alpha_bar[:-1]]
    betas = [float(1.0 - now / before) for now, before in zip(alpha_bar, previous, strict=True)]
    return diffusers.DDPMScheduler(num_train_timesteps=noise.n_train, trained_betas=betas)
