"""The noise that a diffusers scheduler adds on the way: each picture's own, or none at all."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.safe_files.safe_load import first_line

FLOW = "FlowMatchEulerDiscreteScheduler"
PROBES = (1, 2, 3)
PROBE_SHAPE = (4, 8, 8)


def step_noise(keys: Sequence[int]) -> list[torch.Generator]:
    """Returns one stream per picture, a function of its key alone, for a pipeline's `generator`.

    Torch's CPU generator takes the low 32 bits of a seed only, and keys differ above them, so it is
    given a hash of the whole key.
    """
    hashes = (hashlib.sha256(f"step noise {key}".encode()).digest() for key in keys)
    return [torch.Generator().manual_seed(int.from_bytes(h[:4], "big")) for h in hashes]


def require_own_noise(scheduler: Any, steps: int) -> None:
    """Makes sure that a picture depends neither on its place in a batch nor on the run.

    Takes all steps with small stand-ins for latents, twice and in two orders.

    Raises:
        ValueError: If the scheduler ignores the streams it is given, or cannot take these steps.
    """
    name = type(scheduler).__name__
    order = [PROBES[-1], *PROBES[:-1]]
    try:
        first, second = (_stepped(scheduler, steps, keys) for keys in (PROBES, order))
    except Exception as error:  # a scheduler of another kind of model can fail in every way
        raise ValueError(
            f"the base's scheduler, {name}, cannot take {steps} steps from noise to a picture "
            f"({first_line(error)}); put another one in its place"
        ) from error
    if not torch.equal(first, second.roll(-1, dims=0)):
        raise ValueError(
            f"the base's scheduler, {name}, adds noise that belongs to no picture, so that each "
            "run would draw other pictures; put another one in its place, such as "
            "DPMSolverMultistepScheduler with algorithm_type sde-dpmsolver++"
        )


def require_no_noise(scheduler: Any) -> None:
    """Makes sure that a flow's scheduler adds no noise on the way: the calls of SD3 and Flux hand
    no picture's stream to it.

    Raises:
        ValueError: If it does, or is another than diffusers draws flows with.
    """
    name = type(scheduler).__name__
    if name != FLOW or scheduler.config.stochastic_sampling:
        raise ValueError(
            f"the base's scheduler, {name}, may add noise that belongs to no picture; put {FLOW} "
            "with stochastic_sampling off in its place"
        )


def _stepped(scheduler: Any, steps: int, keys: Sequence[int]) -> Tensor:
    """What becomes of the stand-ins of some keys, as a pipeline of Stable Diffusion steps."""
    probe = type(scheduler).from_config(scheduler.config)
    known = inspect.signature(probe.step).parameters
    generator = {"generator": step_noise(keys)} if "generator" in known else {}
    eta = {"eta": 0.0} if "eta" in known else {}
    probe.set_timesteps(steps)
    x = torch.cat([ImageNoise(key, [0], PROBE_SHAPE).x_T() for key in keys])
    x = x * probe.init_noise_sigma
    for t in probe.timesteps:
        said = 0.1 * probe.scale_model_input(x, t)
        x = probe.step(said, t, x, **generator, **eta, return_dict=False)[0]
    return x
