"""What a sampler and a checkpoint cannot do together, in words, before anything is drawn."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.scheduler_config import USUAL, class_defaults, class_of
from ddim_core.samplers.catalogue import OWN, REFUSED, SAMPLERS, SIGMA_HAT, class_entries
from ddim_core.samplers.families import (
    CALLED,
    DISTILLED,
    FLOWS,
    families_that_fit,
    family_of,
    settled_own,
)
from ddim_core.samplers.name import SamplerName, require_key, require_rule
from ddim_core.samplers.values import require_words
from ddim_core.schedulers.registry import scheduler_class

SLACK = 1.01
"""By so much a listed sigma may lie outside the table: published lists are rounded."""


def require_fit(name: SamplerName, own: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """Makes sure that a sampler can follow a checkpoint's network.

    Args:
        name: The sampler.
        own: The checkpoint's scheduler_config.json.
        entries: The sampler's whole configuration for it.

    Raises:
        ValueError: In one sentence, if the pair cannot work, or a key or list does not fit.
    """
    kind = class_behind(name, own)
    _require_family(name, kind, own)
    if name.name not in SAMPLERS:
        _require_keys(name, kind)
    require_words(kind, entries, class_of(own), settled_own(own))
    _require_of_family(name, own, entries)
    _require_list(name, kind, own)
    _require_ends(name, own, {**class_entries(kind), **entries})
    _require_whole_flow(name, entries)


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


def _require_family(name: SamplerName, kind: str, own: Mapping[str, Any]) -> None:
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
        raise ValueError(
            f"{name.name} ({kind}) cannot invert its sigmas, as the checkpoint's {theirs} does"
        )
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


NEVER_CLEAN = ("DEISMultistepScheduler", "SASolverScheduler")
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
    elif family == "flow" and kind in NEVER_CLEAN:
        why = (
            f"on a flow {kind} ends at the sigma of its last step, whose noise stays in the images"
        )
    elif kind == "IPNDMScheduler":
        why = f"{kind} has a schedule of its own, whose timesteps are 0 to 1"
    else:
        why = f"{kind} cannot follow it, which is {CALLED[family]} ({theirs})"
    return f"{name.name} does not fit the checkpoint: {why}; take {', '.join([OWN, *fitting])}"


def _require_keys(name: SamplerName, kind: str) -> None:
    """What `parse_sampler` cannot check of `own`."""
    if name.sigmas:
        require_rule(name.name, kind, name.sigmas)
    for key, value in name.options:
        require_key(name.name, kind, key, value)


OF_FLOWS = ("use_dynamic_shifting", "flow_shift", "shift_terminal", "time_shift_type")


def _require_of_family(
    name: SamplerName, own: Mapping[str, Any], entries: Mapping[str, Any]
) -> None:
    """Makes sure that no entry is set that only flows have: others ignore it, or fail on it."""
    family = family_of(own)
    if family == "flow":
        return
    given = [key for key, _ in name.options if key in OF_FLOWS]
    given += [key for key in OF_FLOWS[:1] if entries.get(key)]
    if given:
        raise ValueError(
            f"{given[0]} is of flow-matching models, and the checkpoint is {CALLED[family]} "
            f"({class_of(own)}); leave it out"
        )


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
    if (
        family == "flow"
        and word == "timesteps"
        and (shift != 1.0 or config.get("use_dynamic_shifting"))
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
    if word == "timesteps":
        return 0.0, n_train - (0.0 if family in FLOWS else 1.0)
    low, high = _levels(family, config)
    return (low, high) if family in FLOWS else (low / SLACK, high * SLACK)


def _levels(family: str, config: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of the noise levels that a network was trained on."""
    if family in FLOWS:
        return 0.0, 1.0
    if "beta_schedule" not in config:
        return config.get("sigma_min") or 0.0, config.get("sigma_max") or math.inf
    alpha_bar = NoiseSchedule.from_diffusers({**config, "_class_name": USUAL}).alpha_bar
    low, high = (math.sqrt((1 - a) / max(a, 2.0**-24)) for a in (alpha_bar[0], alpha_bar[-1]))
    return low, high


ENDS = ("sigma_min", "sigma_max")
SIZES = ("base_image_seq_len", "max_image_seq_len")  # of pictures, in patches


def _require_ends(name: SamplerName, own: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    """Makes sure that sampling goes from noise alone to a picture, through what the network was
    trained on, where a name sets an end of it."""
    given = {
        key: value for key, value in name.options if key in ENDS and isinstance(value, float | int)
    }
    family, config = family_of(own), settled_own(own)
    if given and family not in FLOWS:  # whose sigmas these are not
        low, high = _levels(family, config)
        for key, value in given.items():
            if not low / SLACK <= value <= high * SLACK:
                raise ValueError(
                    f"{key} is {value:g}; the network was trained on sigmas from {low:.4g} to "
                    f"{high:.4g}"
                )
        first, last = given.get("sigma_max", high), given.get("sigma_min", low)
        even = config.get("sigma_data", 1.0)
        if first <= last:
            raise ValueError(f"sigma_min is {last:.4g} and sigma_max {first:.4g}; sigmas must fall")
        if first <= even:
            raise ValueError(
                f"sigma_max is {first:g}, where a noisy image is as much picture as noise, or "
                f"more; sampling starts from noise alone, so it must lie above {even:g} (training "
                f"ends at {high:.4g})"
            )
    if any(key in SIZES for key, _ in name.options):
        small, large = (entries[key] for key in SIZES)
        if small >= large:
            raise ValueError(
                f"{SIZES[0]} is {small} and {SIZES[1]} {large}; the first must be the smaller one"
            )


def _require_whole_flow(name: SamplerName, entries: Mapping[str, Any]) -> None:
    last = entries.get("final_sigmas_type")
    if name.name != OWN and entries.get("use_flow_sigmas") and last == "sigma_min":
        raise ValueError(
            f"{name.name} with final_sigmas_type sigma_min would leave noise in what a flow draws: "
            "its smallest sigma is that of betas, which a flow has not; take zero"
        )
