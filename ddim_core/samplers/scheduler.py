"""A sampler's name and a checkpoint's own scheduler become a scheduler of diffusers, or a refusal
in words before anything is drawn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from ddim_core.diffusion.scheduler_config import class_defaults, class_of
from ddim_core.samplers.catalogue import FLAGS, OWN, REFUSED, SAMPLERS, SIGMA_HAT, class_entries
from ddim_core.samplers.families import (
    CALLED,
    DISTILLED,
    families_that_fit,
    family_of,
    said_by,
    settled_own,
    trained,
)
from ddim_core.samplers.name import SamplerName, require_key, require_rule

SLACK = 1.01
"""By so much a listed sigma may lie outside the table: published lists are rounded."""


RUNGE_KUTTA = 3  # steps with which PNDM starts


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
    kind = class_behind(name, own)
    _require_fit(name, kind, own)
    if name.name not in SAMPLERS:
        _require_keys(name, kind)
    entries = entries_of(name, own)
    _require_list(name, kind, own)
    _require_whole_flow(name, entries)
    try:
        return scheduler_class(kind).from_config(entries)
    except Exception as error:  # a configuration that was never meant for it fails in every way
        raise ValueError(f"{name.text} cannot be made for it: {told_of(error)}") from error


def _require_whole_flow(name: SamplerName, entries: Mapping[str, Any]) -> None:
    last = entries.get("final_sigmas_type")
    if name.name != OWN and entries.get("use_flow_sigmas") and last == "sigma_min":
        raise ValueError(
            f"{name.name} with final_sigmas_type sigma_min would leave noise in what a flow draws: "
            "its smallest sigma is that of betas, which a flow has not; take zero"
        )


def class_behind(name: SamplerName, own: Mapping[str, Any]) -> str:
    """Returns the class of scheduler that a sampler is, for a checkpoint.

    Raises:
        ValueError: If the sampler is of the native path only, or the class cannot be used.
    """
    if name.name == SIGMA_HAT:
        raise ValueError(
            "sigma-hat is a setting of this project's own DDIM sampler, which draws from networks "
            "with a schedule of betas that it knows; no scheduler of diffusers has it (take ddpm)"
        )
    kind = class_of(own) if name.name == OWN else name.name
    kind = SAMPLERS[name.name].kind if name.name in SAMPLERS else kind
    if kind in REFUSED:
        raise ValueError(f"{kind} cannot be used: {REFUSED[kind]}")
    class_entries(kind)
    return kind


def config_of(scheduler: Any) -> dict[str, Any]:
    """Returns the configuration of a scheduler in memory as its scheduler_config.json would say it,
    with its class: what `scheduler_for` takes as a checkpoint's own."""
    return {**scheduler.config, "_class_name": type(scheduler).__name__}


def scheduler_class(kind: str) -> Any:
    """Returns a scheduler class of diffusers by its name."""
    import diffusers.schedulers

    return getattr(diffusers.schedulers, kind)


def entries_of(name: SamplerName, own: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the whole configuration of a sampler for a checkpoint, with its `_class_name`: what
    the checkpoint says, what its network was trained on, what the name stands for, and the keys."""
    kind = class_behind(name, own)
    fixed = dict(SAMPLERS[name.name].fixed) if name.name in SAMPLERS else {}
    carried = {**said_by(own), **trained(own)}
    if family_of(own) == "flow" and kind != class_of(own):
        carried |= _flow_entries(kind, own)
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in name.options}
    wanted = {**carried, **fixed, **_rule_entries(name, kind), **options}
    known = class_entries(kind)
    return {"_class_name": kind, **{k: v for k, v in wanted.items() if k in known}}


def _flow_entries(kind: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """How the schedulers that say it in other words are told of a flow and of its shift."""
    config = settled_own(own)
    shift = config.get("shift", config.get("flow_shift", 1.0))
    told: dict[str, Any] = {"shift": shift}
    if "use_flow_sigmas" in class_entries(kind):
        told = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        told |= dict.fromkeys(FLAGS, False)  # these rules are made from betas, which it has not
    return told


def _rule_entries(name: SamplerName, kind: str) -> dict[str, bool]:
    if not (name.sigmas or name.timesteps or name.own_sigmas):
        return {}
    return {flag: rule == name.sigmas for flag, rule in FLAGS.items() if flag in class_entries(kind)}


def _require_fit(name: SamplerName, kind: str, own: Mapping[str, Any]) -> None:
    family, theirs = family_of(own), class_of(own)
    if class_defaults(theirs) is None:
        raise ValueError(f"the checkpoint's own scheduler is a {theirs}, which diffusers has not")
    if kind == theirs:
        return
    if family not in families_that_fit(name.name, kind):
        raise ValueError(_misfit(name, kind, own))
    config, known = settled_own(own), class_entries(kind)
    if config.get("use_dynamic_shifting") and "use_dynamic_shifting" not in known:
        raise ValueError(
            f"{name.name} ({kind}) cannot shift its sigmas by the size of the picture, as the "
            f"checkpoint's {theirs} does (use_dynamic_shifting); take flow_euler, dpmpp_2m or unipc"
        )
    if config.get("invert_sigmas") and "invert_sigmas" not in known:
        raise ValueError(f"{name.name} ({kind}) cannot invert its sigmas as the checkpoint's {theirs}")
    if name.sigmas not in (None, "linear") and family == "flow" and "use_flow_sigmas" in known:
        raise ValueError(
            f"{name.name} makes its rule {name.sigmas!r} of sigmas from betas, which a flow has "
            "not; leave the rule out, or take flow_euler"
        )
    predicted = config.get("prediction_type", "epsilon")
    if predicted == "sample" and kind in WITHOUT_SAMPLE:
        raise ValueError(
            f"{name.name} ({kind}) needs a network that predicts epsilon or v; the checkpoint's "
            "predicts x0 (prediction_type sample)"
        )


WITHOUT_SAMPLE = (
    "PNDMScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
    "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
)  # fmt: skip


def _misfit(name: SamplerName, kind: str, own: Mapping[str, Any]) -> str:
    family, theirs = family_of(own), class_of(own)
    fitting = [n for n, s in SAMPLERS.items() if family in s.fits and s.kind != theirs]
    if family == "distilled":
        fitting = [n for n, s in SAMPLERS.items() if s.kind == theirs]
        why = f"its network is distilled for {theirs}, which no other sampler draws from rightly"
    elif kind in DISTILLED:
        why = f"{kind} draws only from networks distilled for it, and this one is {CALLED[family]}"
    else:
        why = f"{kind} cannot follow it, which is {CALLED[family]} ({theirs})"
    return f"{name.name} does not fit the checkpoint: {why}; take {', '.join([OWN, *fitting])}"


def _require_keys(name: SamplerName, kind: str) -> None:
    """What `parse_sampler` cannot check of `own`."""
    if name.sigmas:
        require_rule(name.name, kind, name.sigmas)
    for key, _ in name.options:
        require_key(name.name, kind, key)


def _require_list(name: SamplerName, kind: str, own: Mapping[str, Any]) -> None:
    """Makes sure that a list of one's own is taken, and lies where the network was trained."""
    listed, word = name.timesteps or name.own_sigmas, "timesteps" if name.timesteps else "sigmas"
    if not listed:
        return
    family, config = family_of(own), settled_own(own)
    takes = word in inspect.signature(scheduler_class(kind).set_timesteps).parameters
    if not takes or (kind == "UniPCMultistepScheduler" and family != "flow"):
        raise ValueError(f"{name.name} ({kind}) takes no list of {word} of one's own")
    shift = config.get("shift", config.get("flow_shift", 1.0))
    if family == "flow" and word == "timesteps" and (
        shift != 1.0 or config.get("use_dynamic_shifting")
    ):
        raise ValueError(
            f"{name.name} shifts its sigmas away from the timesteps that are listed; list sigmas"
        )
    low, high = _range(word, family, config)
    if listed[0] > high or listed[-1] < low:
        raise ValueError(
            f"{word} are listed from {listed[0]} to {listed[-1]}; the network was trained on "
            f"{low:.6g} to {high:.6g}"
        )


def _range(word: str, family: str, config: Mapping[str, Any]) -> tuple[float, float]:
    n_train = int(config.get("num_train_timesteps", 1000))
    if family == "flow":
        return (0.0, n_train) if word == "timesteps" else (0.0, 1.0)
    if word == "timesteps":
        return 0.0, n_train - 1.0
    if family == "edm":
        return config["sigma_min"] / SLACK, config["sigma_max"] * SLACK
    from ddim_core.diffusion.schedule import NoiseSchedule

    alpha_bar = NoiseSchedule.from_diffusers({**config, "_class_name": "DDIMScheduler"}).alpha_bar
    sigmas = [math.sqrt((1 - a) / max(a, 2.0**-24)) for a in (alpha_bar[0], alpha_bar[-1])]
    return sigmas[0] / SLACK, sigmas[1] * SLACK


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
    asked: dict[str, Any] = {"device": device}
    if name.timesteps:
        asked["timesteps"] = list(name.timesteps)
    elif name.own_sigmas:
        asked["sigmas"] = [*name.own_sigmas, *_last_of(scheduler)]
    else:
        asked["num_inference_steps"] = steps
    if mu is not None:
        asked["mu"] = mu
    try:
        scheduler.set_timesteps(**asked)
    except Exception as error:  # each scheduler refuses in its own way
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
    once = getattr(scheduler, "order", 1) == 1 and type(scheduler).__name__ != "PNDMScheduler"
    # A first timestep that stands twice makes diffusers begin at the second of them.
    again = done.timesteps[:1] == done.timesteps[1:2]
    if once and (again or any(a == b for a, b in pairwise(done.sigmas[:-1]))):
        raise ValueError(f"{said} visits a noise level twice, which its steps cannot; take fewer")
    if name.timesteps and not set(done.timesteps) <= {float(torch.tensor(t)) for t in name.timesteps}:
        raise ValueError(f"{name.text} takes whole timesteps only; list whole numbers")


def visited(scheduler: Any) -> Visited:
    """Returns where a scheduler that is ready asks the network."""
    timesteps = tuple(float(t) for t in scheduler.timesteps)
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
    return Visited(timesteps, tuple(math.sqrt((1 - a) / max(a, 2.0**-24)) for a in map(float, levels)))


def takes_eta(scheduler: Any) -> bool:
    """Tells whether a scheduler's step takes eta."""
    return "eta" in inspect.signature(scheduler.step).parameters


def told_of(error: Exception) -> str:
    """Returns the first line of what a library said of an error."""
    said = str(error).strip().splitlines()
    return said[0].rstrip(".") if said else type(error).__name__
