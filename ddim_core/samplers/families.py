"""Families of checkpoints by their own scheduler, and which samplers fit which."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ddim_core.common.foreign import Config
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.scheduler_config import USUAL, class_defaults, class_of
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec, SchedulerSpec
from ddim_core.samplers.catalogue import SAMPLERS, VP, Family, class_entries
from ddim_core.samplers.name import TRAINED, SamplerName, parse_sampler

DDIM = "ddim"
DISTILLED = (
    "LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler", "CMStochasticIterativeScheduler",
    "SCMScheduler",
)  # fmt: skip
FLOWS: tuple[Family, ...] = ("flow", "curved")  # whose levels are shares of noise
VARIANCE_EXPLODING = ("ScoreSdeVeScheduler", "KarrasVeScheduler")
CALLED: dict[Family, str] = {
    "vp": "a diffusion model with a schedule of betas",
    "flow": "a flow-matching model",
    "curved": "a flow along a curved path",
    "edm": "an EDM",
    "ve": "a variance-exploding model",
    "distilled": "distilled to few steps",
    "other": "of a kind of its own",
}


def settled_own(own: Mapping[str, Any]) -> Config:
    """Returns a checkpoint's scheduler configuration with its class's defaults where it is silent.

    A configuration of a scheduler in memory lists, as `_use_default_values`, where its file is
    silent.
    """
    return {**(class_defaults(class_of(own)) or {}), **said_by(own)}


def said_by(own: Mapping[str, Any]) -> Config:
    """Returns what a scheduler configuration says itself, without its private entries."""
    silent = own.get("_use_default_values") or ()
    return {k: v for k, v in own.items() if not k.startswith("_") and k not in silent}


def family_of(own: Mapping[str, Any]) -> Family:
    """Returns the family of a checkpoint's network by its scheduler_config.json."""
    kind, config = class_of(own), settled_own(own)
    if kind in DISTILLED:
        return "distilled"
    if config.get("path", "linear") != "linear":
        return "curved"
    if config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction":
        return "flow"
    if kind.startswith("FlowMatch"):
        return "flow"
    if kind.startswith("EDM"):
        return "edm"
    if kind in VARIANCE_EXPLODING:
        return "ve"
    bent = config.get("snr_shift_scale", 1.0) != 1.0 or config.get("timestep_type") == "continuous"
    return "vp" if "beta_schedule" in config and not bent else "other"


def trained(own: Mapping[str, Any]) -> Config:
    """Returns those entries of a checkpoint's scheduler that its network was trained on.

    Another class of scheduler has other defaults (`HeunDiscreteScheduler` another schedule of betas
    than `DDIMScheduler`), which `from_config` takes where the checkpoint's file is silent.
    """
    return {key: value for key, value in settled_own(own).items() if key in TRAINED}


def levels_of(own: Mapping[str, Any]) -> Callable[[float], float]:
    """Returns what makes a timestep of a checkpoint's network its noise level: noise over signal of
    a diffusion model and of an EDM, the share of noise of a flow.

    Raises:
        ValueError: If its timesteps mean something else.
    """
    family, config = family_of(own), settled_own(own)
    if family in FLOWS:
        n_train = int(config.get("num_train_timesteps", 1000))
        return lambda t: t / n_train
    if family == "vp":
        return NoiseSchedule.from_diffusers({**config, "_class_name": USUAL}).level
    if family == "edm":
        return lambda t: math.exp(4.0 * t)
    raise ValueError(
        f"guidance_interval is given, and the checkpoint is {CALLED[family]} ({class_of(own)}), "
        "whose timesteps tell no noise level; leave it out"
    )


def inside_of(interval: tuple[float, float], own: Mapping[str, Any]) -> Callable[[float], bool]:
    """Returns what tells of a timestep whether its noise level lies in an interval, both ends with.

    Args:
        interval: Low and high, as of `levels_of`.
        own: The checkpoint's scheduler_config.json, with its class.

    Raises:
        ValueError: As `levels_of`.
    """
    from ddim_core.diffusion.guidance import within  # torch is slow to import

    level = levels_of(own)
    return lambda t: within(interval, level(t))


def unless_all(
    interval: tuple[float, ...],
    line: SamplerSpec | SchedulerSpec,
    own: Mapping[str, Any] | None,
    noise: NoiseSpec | None,
) -> tuple[float, ...]:
    """Returns an interval of noise levels, as of `levels_of`; empty, as if it were not given, where
    it is known to hold all that a sampler asks at, whatever its S: else one would have two keys.

    Args:
        interval: Low and high; or empty.
        line: The sampler.
        own: The checkpoint's scheduler; None before it is known.
        noise: A schedule instead of its own.
    """
    named = DDIM if isinstance(line, SamplerSpec) else line.sampler
    if not interval or own is None:
        return interval
    ends = _ends(own, parse_sampler(named), noise)
    return () if ends and interval[0] <= ends[0] and ends[1] <= interval[1] else interval


def _ends(
    own: Mapping[str, Any], name: SamplerName, noise: NoiseSpec | None
) -> tuple[float, float] | None:
    """Between which levels a sampler asks; None where that is not known."""
    family, config = family_of(own), {**settled_own(own), **dict(name.options)}
    if name.n_listed or family not in (*FLOWS, "vp", "edm"):
        return None
    if family in FLOWS:
        return 0.0, 1.0
    if family == "vp":
        level = NoiseSchedule.from_spec(noise).level if noise else levels_of(own)
        return level(0), level((noise.n_train if noise else config["num_train_timesteps"]) - 1)
    known = config.get("levels") or ()
    churn = math.sqrt(2.0) if config.get("S_churn") else 1.0  # at most, see `EDMHeunScheduler`
    return min((config["sigma_min"], *known)), max((config["sigma_max"], *known)) * churn


def families_that_fit(name: str, kind: str) -> tuple[Family, ...]:
    """Returns the families of checkpoints whose networks a sampler can sample, besides those whose
    own scheduler is of its class."""
    if name in SAMPLERS:
        return SAMPLERS[name].fits
    of_kind = [sampler.fits for sampler in SAMPLERS.values() if sampler.kind == kind]
    if of_kind:
        return of_kind[0]
    entries = class_entries(kind)
    plain = "beta_schedule" in entries and "snr_shift_scale" not in entries
    return VP if plain and kind not in DISTILLED else ()
