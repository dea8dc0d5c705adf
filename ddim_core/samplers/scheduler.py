"""A sampler's name and a checkpoint's own scheduler become a scheduler of diffusers, or a refusal
in words before anything is drawn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ddim_core.common.foreign import Config, Keywords
from ddim_core.diffusion.scheduler_config import LEARNED, class_of
from ddim_core.samplers.catalogue import FLAGS, SAMPLERS, class_entries
from ddim_core.samplers.families import family_of, said_by, settled_own, trained
from ddim_core.samplers.fits import class_behind, require_fit
from ddim_core.samplers.name import SamplerName
from ddim_core.samplers.values import WITH_VARIANCE
from ddim_core.schedulers.registry import scheduler_class

RUNGE_KUTTA = 3  # steps with which PNDM starts
WHOLE_STEPS = ("PNDMScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler",
               "DDPMParallelScheduler")  # fmt: skip
"""Classes that visit whole timesteps, each once."""


BETWEEN = "intermediate_timesteps"
"""What SCM takes between its two steps."""


@dataclass(frozen=True)
class Visited:
    """Where a scheduler asks the network: what is done, not what was asked.

    Attributes:
        timesteps: One for each network evaluation, noisiest first; of a flow they are fractional.
        sigmas: The noise level at each of them, and the one where the last step lands: noise over
            signal of a diffusion model, the share of noise of a flow.
    """

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]


def scheduler_for(name: SamplerName, own: Mapping[str, Any]) -> Any:
    """Makes the scheduler of a sampler for a checkpoint.

    As `CLASS.from_config(own, **entries)` does, what the checkpoint's configuration says is carried
    over where the class knows it; besides, whatever the network was trained on is carried over also
    where the configuration leaves it to its class's defaults.

    Args:
        name: The sampler.
        own: The checkpoint's scheduler_config.json, with its `_class_name`.

    Returns:
        A fresh scheduler of diffusers; `set_steps` makes it ready.

    Raises:
        ValueError: In one sentence, if the pair cannot work, or a key or list does not fit.
    """
    kind, entries = class_behind(name, own), entries_of(name, own)
    require_fit(name, own, entries)
    try:
        return scheduler_class(kind).from_config(entries)
    except Exception as error:  # a configuration that was never meant for it fails in every way
        raise ValueError(f"{name.text} cannot be made for it: {told_of(error)}") from error


def config_of(scheduler: Any) -> Config:
    """Returns the configuration of a scheduler in memory as its scheduler_config.json would say it,
    with its class: what `scheduler_for` takes as a checkpoint's own."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def entries_of(name: SamplerName, own: Mapping[str, Any]) -> Config:
    """Returns the whole configuration of a sampler for a checkpoint, with its `_class_name`: what
    the checkpoint says, what its network was trained on, what the name stands for, and the keys."""
    kind = class_behind(name, own)
    fixed = dict(SAMPLERS[name.name].fixed) if name.name in SAMPLERS else {}
    carried = {**said_by(own), **trained(own)}
    if family_of(own) == "flow" and kind != class_of(own):
        carried |= _flow_entries(kind, own)
    if kind not in WITH_VARIANCE:
        carried.pop("variance_type", None)  # the network's own variance is of DDPM's steps alone
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in name.options}
    wanted = {**carried, **fixed, **_rule_entries(name, kind), **options}
    known = class_entries(kind)
    return {"_class_name": kind, **{k: v for k, v in wanted.items() if k in known}}


def _flow_entries(kind: str, own: Mapping[str, Any]) -> Config:
    """How the schedulers that say it in other words are told of a flow and of its shift."""
    config = settled_own(own)
    shift = config.get("shift", config.get("flow_shift", 1.0))
    told: Config = {"shift": shift}
    if "use_flow_sigmas" in class_entries(kind):
        told = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        told |= dict.fromkeys(FLAGS, False)  # these rules are made from betas, which it has not
    return told


def _rule_entries(name: SamplerName, kind: str) -> dict[str, bool]:
    if not (name.sigmas or name.timesteps or name.own_sigmas):
        return {}
    return {
        flag: rule == name.sigmas for flag, rule in FLAGS.items() if flag in class_entries(kind)
    }


def set_steps(
    scheduler: Any, name: SamplerName, steps: int, device: str = "cpu", mu: float | None = None
) -> Visited:
    """Makes a scheduler ready for one run, from pure noise to clean images.

    Args:
        scheduler: Of `scheduler_for`; what is left of an earlier run is forgotten.
        name: The sampler; its list of one's own, if any, is taken.
        steps: S, the steps asked for; equal to the number listed where there is a list.
        device: Where the timesteps go.
        mu: The shift of sigmas by the size of the picture, where the scheduler has such.

    Returns:
        What is done: `visited`.

    Raises:
        ValueError: If the scheduler refuses so many steps, or would ask the network where it was
            never trained.
    """
    if name.n_listed not in (None, steps):
        raise ValueError(f"{steps} steps are asked of {name.text}, which lists {name.n_listed}")
    _require_enough(name, scheduler, steps)
    asked: Keywords = {"device": device}
    if name.timesteps:
        asked["timesteps"] = list(name.timesteps)
    elif name.own_sigmas:
        asked["sigmas"] = np.array([*name.own_sigmas, *_last_of(scheduler)])
    else:
        asked["num_inference_steps"] = steps
    if mu is not None:
        asked["mu"] = mu
    if BETWEEN in inspect.signature(scheduler.set_timesteps).parameters and steps != 2:
        asked[BETWEEN] = None  # its default is for two steps
    try:
        scheduler.set_timesteps(**asked)
        if hasattr(scheduler, "set_sigmas"):  # of a variance-exploding model
            scheduler.set_sigmas(steps)
    except Exception as error:  # each scheduler refuses in its own way
        if mu is None and scheduler.config.get("use_dynamic_shifting"):
            raise ValueError(
                f"{name.text} shifts its sigmas by the size of the picture (use_dynamic_shifting), "
                "which only a pipeline's own call tells it; leave that out"
            ) from error
        raise ValueError(f"{name.text} cannot take {steps} steps: {told_of(error)}") from error
    done = visited(scheduler)
    _require_trained(name, steps, scheduler, done)
    return done


def _require_enough(name: SamplerName, scheduler: Any, steps: int) -> None:
    least = 1
    if type(scheduler).__name__ == "PNDMScheduler" and not scheduler.config.skip_prk_steps:
        least = RUNGE_KUTTA + 1
    if steps < least:
        raise ValueError(f"{steps} steps are asked of {name.text}; it takes {least} or more")
    most = scheduler.config.get("num_train_timesteps")
    if most is not None and steps > most and type(scheduler).__name__ in WHOLE_STEPS:
        raise ValueError(
            f"{steps} steps are asked of {name.text}; it takes at most {most}, the timesteps that "
            "its network was trained on"
        )


def _last_of(scheduler: Any) -> list[float]:
    """The 0 that the schedulers with betas want at the end of a list of sigmas."""
    return [0.0] if type(scheduler).__name__ == "EulerDiscreteScheduler" else []


def _require_trained(name: SamplerName, steps: int, scheduler: Any, done: Visited) -> None:
    """Makes sure that what is done can be: diffusers goes on with lists that make no sense."""
    said = f"{name.text} with {steps} steps"
    if not done.timesteps or not all(map(math.isfinite, (*done.timesteps, *done.sigmas))):
        raise ValueError(f"{said} visits no finite timesteps and sigmas; take another number")
    low, high = min(done.timesteps), max(done.timesteps)
    n_train = scheduler.config.get("num_train_timesteps")
    betas = "beta_schedule" in scheduler.config and not scheduler.config.get("use_flow_sigmas")
    if betas and n_train is not None and not (low >= 0 and high <= n_train - 1):
        raise ValueError(
            f"{said} asks the network at timesteps {low:g} to {high:g}; it was trained on 0 to "
            f"{n_train - 1}"
        )
    repeats = type(scheduler).__name__ in ("PNDMScheduler", "ScoreSdeVeScheduler")
    once = getattr(scheduler, "order", 1) == 1 and not repeats
    # A first timestep that stands twice makes diffusers begin at the second of them.
    again = done.timesteps[:1] == done.timesteps[1:2]
    if once and (again or any(a == b for a, b in pairwise(done.sigmas[:-1]))):
        raise ValueError(f"{said} visits a noise level twice, which its steps cannot; take fewer")
    if name.timesteps and not set(done.timesteps) <= {
        float(torch.tensor(t)) for t in name.timesteps
    }:
        raise ValueError(f"{name.text} takes whole timesteps only; list whole numbers")


def visited(scheduler: Any) -> Visited:
    """Returns where a scheduler that is ready asks the network."""
    if hasattr(scheduler, "step_pred"):  # asked at the noise level itself, to correct and predict
        each = 1 + scheduler.config.correct_steps
        asked = tuple(float(sigma) for sigma in scheduler.sigmas for _ in range(each))
        return Visited(asked, (*asked, 0.0))
    timesteps = tuple(float(t) for t in asks_at(scheduler))
    sigmas = getattr(scheduler, "sigmas", None)
    if sigmas is not None and len(sigmas) == len(timesteps) + 1:
        return Visited(timesteps, tuple(float(sigma) for sigma in sigmas))
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        return Visited(timesteps, ())
    if not all(map(math.isfinite, timesteps)):
        return Visited(timesteps, ())
    levels = [table[min(max(int(t), 0), len(table) - 1)] for t in timesteps]
    levels.append(getattr(scheduler, "final_alpha_cumprod", torch.tensor(1.0)))
    return Visited(
        timesteps, tuple(math.sqrt((1 - a) / max(a, 2.0**-24)) for a in map(float, levels))
    )


def asks_at(scheduler: Any) -> torch.Tensor:
    """Returns the timesteps at which a scheduler that is ready asks the network: SCM lists where
    its last step lands among them."""
    timesteps: torch.Tensor = scheduler.timesteps
    return timesteps[:-1] if type(scheduler).__name__ == "SCMScheduler" else timesteps


def learns_variance(scheduler: Any) -> bool:
    """Tells whether a scheduler takes its variance from the network."""
    is_one = type(scheduler).__name__ in WITH_VARIANCE
    return is_one and scheduler.config.get("variance_type") in LEARNED


def takes_eta(scheduler: Any) -> bool:
    """Tells whether a scheduler's step takes eta."""
    step = getattr(scheduler, "step", None)
    return step is not None and "eta" in inspect.signature(step).parameters


def told_of(error: Exception) -> str:
    """Returns the first line of what a library said of an error."""
    said = str(error).strip().splitlines()
    return said[0].rstrip(".") if said else type(error).__name__
