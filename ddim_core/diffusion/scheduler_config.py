"""What a diffusers scheduler's configuration says, and what its class takes where it is silent."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from ddim_core.common.foreign import Config
from ddim_core.schedulers.registry import scheduler_class

USUAL = "DDIMScheduler"  # of a configuration that names no class
BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule")
# Diffusers shows these classes only where another library is installed: its defaults by hand.
ELSEWHERE: dict[str, Config] = {
    "DPMSolverSDEScheduler": {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "linear", "trained_betas": None, "prediction_type": "epsilon",
        "timestep_spacing": "linspace", "steps_offset": 0,
    },
    "CosineDPMSolverMultistepScheduler": {"prediction_type": "v_prediction"},
}  # fmt: skip
PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
SPACINGS = ("leading", "linspace", "trailing", "uniform", "quad")  # diffusers' own, and ours
BOOLEANS = ("clip_sample", "thresholding", "rescale_betas_zero_snr", "set_alpha_to_one")
NUMBERS = {  # by name: the least, the most, and whether the least itself will do
    "beta_start": (0.0, 1.0, True), "beta_end": (0.0, 1.0, True),
    "clip_sample_range": (0.0, 1e6, False), "dynamic_thresholding_ratio": (0.0, 1.0, False),
    "sample_max_value": (0.0, 1e6, False),
}  # fmt: skip
DISTILLED = ("LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")
WITHOUT_BETAS = ("FlowMatch", "EDM")  # what the classes of such schedulers begin with
LEARNED = ("learned", "learned_range")  # variance_type of a network that predicts a variance too
FLOW_PREDICTION = "flow_prediction"  # what a flow's network predicts, by diffusers' name
DISTILLED_PIPELINES = ("LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline")


def class_of(config: Mapping[str, Any]) -> str:
    """Returns the class that a scheduler_config.json is of."""
    named = config.get("_class_name")
    return _today(named) if isinstance(named, str) else USUAL


def with_class(config: Mapping[str, Any], index: Mapping[str, Any]) -> Config:
    """Returns a configuration with the class that diffusers opens it with, where that matters.

    Diffusers goes by the index of a pipeline. Where the configuration names another class and the
    schedule is the same by both, it stays as it is.

    Args:
        config: A scheduler_config.json.
        index: The model_index.json of its pipeline; empty where there is none.

    Raises:
        ValueError: As `settled`, for the class of either.
    """
    named = index.get("scheduler")
    if not (isinstance(named, list) and len(named) == 2 and isinstance(named[1], str)):
        return dict(config)
    opened = {**config, "_class_name": named[1]}
    if without_betas(opened):
        return opened
    settled(opened)
    if "_class_name" in config and silent_on(opened) == silent_on(config):
        return dict(config)
    return opened


def class_defaults(name: str) -> Config | None:
    """Returns what a scheduler class takes where its configuration is silent, by name; None if
    there is no such class."""
    if name in ELSEWHERE:
        return dict(ELSEWHERE[name])
    kind = scheduler_class(name)
    if kind is None:
        return None
    parameters = inspect.signature(kind.__init__).parameters
    return {n: p.default for n, p in parameters.items() if p.default is not inspect.Parameter.empty}


def settled(config: Mapping[str, Any]) -> Config:
    """Returns a configuration with its class's own defaults where it is silent.

    A class that diffusers does not have takes DDIMScheduler's.

    Raises:
        ValueError: If an entry is of a wrong type or out of its range, or its class has no
            schedule of betas, shifts it, or samples distilled networks.
    """
    _require_class_name(config)
    _require_betas(class_of(config), config)
    whole = {**(class_defaults(class_of(config)) or class_defaults(USUAL) or {}), **config}
    _require_types(config)
    _require_offset(whole)
    return whole


def without_betas(config: Mapping[str, Any]) -> bool:
    """Tells whether a configuration is of a flow or of an EDM, whose networks know no schedule of
    betas: diffusers' schedulers draw from them, the project's own sampler does not."""
    kind, predicts = class_of(config), config.get("prediction_type")
    if kind in DISTILLED:
        return False
    is_flow = bool(config.get("use_flow_sigmas")) or predicts == FLOW_PREDICTION
    return is_flow or kind.startswith(WITHOUT_BETAS)


def predicted(config: Mapping[str, Any]) -> str:
    """Returns what the network of a configuration predicts, by diffusers' name."""
    kind = class_of(config)
    if without_betas(config) and not kind.startswith("EDM"):
        return FLOW_PREDICTION
    return str(config.get("prediction_type", "epsilon"))


def silent_on(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Returns those settings of the noise schedule that are defaults of the class, with names."""
    if config.get("trained_betas") is not None:
        return []
    taken = settled(config)
    cosine = taken["beta_schedule"] == "squaredcos_cap_v2"  # which has no ends to set
    names = [n for n in BETAS if not (cosine and n in ("beta_start", "beta_end"))]
    return [(n, taken[n]) for n in names if n not in config and n in taken]


def require_undistilled(index: Mapping[str, Any], network: Mapping[str, Any]) -> None:
    """Makes sure that a pipeline's network is not distilled to a consistency model.

    Args:
        index: Its model_index.json.
        network: The config.json of its U-Net.

    Raises:
        ValueError: If it is.
    """
    kind = index.get("_class_name")
    if kind in DISTILLED_PIPELINES:
        raise ValueError(_distilled(f"the pipeline is a {kind}"))
    if network.get("time_cond_proj_dim") is not None:
        told = f"time_cond_proj_dim is {network['time_cond_proj_dim']!r} in unet/config.json"
        raise ValueError(_distilled(f"{told} (the guidance is told to the network)"))


def _require_class_name(config: Mapping[str, Any]) -> None:
    name = config.get("_class_name", USUAL)
    if not (isinstance(name, str) and name.isidentifier()):
        raise _wrong("_class_name", name, "be the name of a scheduler of diffusers")


def _require_types(config: Mapping[str, Any]) -> None:
    """Makes sure of the entries that are read; others are what their own class makes of them."""
    for name, value in config.items():
        if name in BOOLEANS and value is not None and type(value) is not bool:
            raise _wrong(name, value, "be true or false")
        if name in NUMBERS and not _is_in(value, *NUMBERS[name]):
            least, most, with_least = NUMBERS[name]
            bracket = "[" if with_least else "("
            raise _wrong(name, value, f"be a number in {bracket}{least:g}, {most:g}]")
        if name in ("beta_schedule", "prediction_type") and not isinstance(value, str):
            raise _wrong(name, value, "be a name, as diffusers writes it")
        if name == "prediction_type" and value not in PREDICTIONS:
            raise _wrong(name, value, f"be one of {', '.join(PREDICTIONS)}")
        if name == "timestep_spacing" and value not in SPACINGS:
            raise _wrong(name, value, f"be one of {', '.join(SPACINGS)}")
        if name == "num_train_timesteps" and not (type(value) is int and value >= 1):
            raise _wrong(name, value, "be a whole number of at least 1")
    _require_given(config.get("trained_betas"))


def _require_given(betas: Any) -> None:
    if betas is not None and not isinstance(betas, (list, tuple)):
        raise _wrong("trained_betas", betas, "be a list of numbers in [0, 1]")
    for i, beta in enumerate(betas or ()):
        if not _is_in(beta, 0.0, 1.0, True):
            raise _wrong("trained_betas", betas, f"be numbers in [0, 1], and entry {i} is {beta!r}")


def _require_offset(whole: Mapping[str, Any]) -> None:
    offset, n_train = whole.get("steps_offset", 0), whole.get("num_train_timesteps", 1000)
    if type(offset) is not int or not 0 <= offset < max(n_train, 2):
        raise _wrong("steps_offset", offset, f"be a whole number in 0..{n_train - 1}")


def _is_in(value: Any, least: float, most: float, with_least: bool) -> bool:
    if type(value) not in (int, float):
        return False
    return bool(least <= value <= most and (with_least or value > least))


def _wrong(name: str, value: Any, wanted: str) -> ValueError:
    return ValueError(f"{name} is {value!r:.100} in scheduler_config.json; it must {wanted}")


def _require_betas(name: str, config: Mapping[str, Any]) -> None:
    if name in DISTILLED:
        raise ValueError(_distilled(f"the scheduler is a {name}"))
    defaults = class_defaults(name)
    if defaults is None:  # not of diffusers
        if config.get("beta_schedule") or config.get("trained_betas"):
            return
    elif "beta_schedule" in defaults:
        shift = config.get("snr_shift_scale", defaults.get("snr_shift_scale", 1.0))
        if "snr_shift_scale" in defaults and shift != 1.0:
            raise ValueError(
                f"the scheduler is a {name} with snr_shift_scale {shift}, which bends its schedule "
                "of betas; only plain schedules are sampled"
            )
        return
    raise ValueError(
        f"the scheduler is a {name} without beta_schedule; its network is no DDPM (of the others, "
        "flows and EDMs have samplers; variance exploding and consistency models have none)"
    )


def _distilled(why: str) -> str:
    return (
        f"{why}: its network is distilled to a consistency model (LCM, TCD), which no step of DDIM "
        "samples rightly; give the checkpoint it was distilled from, or, if the network is not "
        "distilled, put that checkpoint's own scheduler in place of this one"
    )


def _today(name: str) -> str:
    """Today's name: the Flax classes, which diffusers has given up, had the same settings."""
    return name.removeprefix("Flax")
