"""What the entries of a scheduler's configuration may be set to: one of a few words, or a number of
a certain kind.

Diffusers says it by the types of its constructors where it says it at all; some classes take any
word or number there and do as if another stood in its place, or divide by it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ddim_core.common.checks import nearest
from ddim_core.diffusion.scheduler_config import LEARNED
from ddim_core.samplers.catalogue import FLAGS, class_entries
from ddim_core.schedulers.registry import scheduler_class

UNTYPED: dict[str, tuple[str, ...]] = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "algorithm_type": ("data_prediction", "noise_prediction"),  # of SASolver
    "interpolation_type": ("linear", "log_linear"),
    "variance_type": ("learned", "learned_range"),
}
"""Of entries that a class declares as any text."""
OF_ANY_FAMILY = ("flow_prediction", "trigflow")  # of networks, whatever the class
CARRIED = ("algorithm_type", "solver_type", "variance_type")
"""Entries of another class's own that diffusers' classes translate when they are handed on."""
WITH_VARIANCE = ("DDPMScheduler", "DDPMParallelScheduler")
"""Classes whose steps take a variance that the network predicts."""
ABOVE_0 = "a number above 0"
NUMBERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    **dict.fromkeys(
        ("sigma_min", "sigma_max", "shift", "flow_shift", "clip_sample_range", "timestep_scaling",
         "rho", "snr"),
        (ABOVE_0, lambda v: v > 0),
    ),
    "shift_terminal": ("a number above 0 and below 1", lambda v: 0 < v < 1),
    "sampling_eps": ("a number above 0 and below 1", lambda v: 0 < v < 1),
    "last_step_size": ("a number above 0 and below 1", lambda v: 0 < v < 1),
    "diffusion_norm": (ABOVE_0, lambda v: v > 0),
    "dynamic_thresholding_ratio": ("a number above 0, at most 1", lambda v: 0 < v <= 1),
    "sample_max_value": ("a number of at least 1", lambda v: v >= 1),
    **dict.fromkeys(
        ("s_noise", "S_churn", "S_min", "S_max", "S_noise"),
        ("a number of at least 0", lambda v: v >= 0),
    ),
    "steps_offset": ("a whole number of at least 0", lambda v: v >= 0),
    "correct_steps": ("a whole number of at least 0", lambda v: v >= 0),
    "original_inference_steps": ("a whole number of at least 1", lambda v: v >= 1),
    "base_image_seq_len": ("a whole number of at least 1", lambda v: v >= 1),
    "max_image_seq_len": ("a whole number of at least 1", lambda v: v >= 1),
    **dict.fromkeys(
        ("solver_order", "predictor_order", "corrector_order"),
        ("1, 2 or 3", lambda v: v in (1, 2, 3)),
    ),
}  # fmt: skip
"""What numbers make sense, whatever the checkpoint."""
WHOLE = "a whole number"

OTHERWISE = "the network is used otherwise than it was trained"
DEPARTS = {
    **dict.fromkeys(("timestep_scaling", "s", "scaler", "shift_terminal"), OTHERWISE),
    "use_dynamic_shifting": f"{OTHERWISE}, with its noise shared out by the size of the picture",
    "sigma_min": "noise levels end elsewhere than they did in training",
    "sigma_max": "noise levels begin elsewhere than they did in training",
    **dict.fromkeys(
        ("clip_sample", "thresholding"),
        "each predicted image is cut to a range, which pixels have and latents have not",
    ),
}
"""Entries that are not for a sampler to choose freely, and what it means that one is."""
PLAYS_A_PART: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
    **dict.fromkeys(
        ("sigma_min", "sigma_max"),
        ("with a rule of sigmas (karras, exponential, beta)",
         lambda e: not any(f in e for f in FLAGS) or any(e.get(f) for f in FLAGS)),
    ),
    **dict.fromkeys(
        ("S_min", "S_max", "S_noise"), ("with S_churn above 0", lambda e: e.get("S_churn", 0) > 0)
    ),
    "clip_sample_range": ("with clip_sample=true", lambda e: bool(e.get("clip_sample"))),
    **dict.fromkeys(
        ("dynamic_thresholding_ratio", "sample_max_value"),
        ("with thresholding=true", lambda e: bool(e.get("thresholding"))),
    ),
    "steps_offset": (
        "with timestep_spacing=leading", lambda e: e.get("timestep_spacing") in ("leading", None)
    ),
    **dict.fromkeys(
        ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"),
        ("with use_dynamic_shifting=true", lambda e: bool(e.get("use_dynamic_shifting"))),
    ),
    **dict.fromkeys(
        ("shift", "flow_shift"),
        ("without use_dynamic_shifting", lambda e: not e.get("use_dynamic_shifting")),
    ),
}  # fmt: skip
"""Entries that count only with another one: in words, and by the whole configuration."""


@cache
def words_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Returns the words that a scheduler class takes, by entry."""
    known = class_entries(kind)
    found = {key: words for key, words in UNTYPED.items() if key in known}
    made = inspect.unwrap(scheduler_class(kind).__init__)
    try:
        hints = get_type_hints(made, vars(sys.modules[made.__module__]))
    except (NameError, TypeError):  # of another version, which says it otherwise
        return found
    for key, hint in hints.items():
        options = [hint, *get_args(hint)]
        words = [w for o in options if get_origin(o) is Literal for w in get_args(o)]
        if words and key in known:
            found[key] = tuple(words)
    return found


def require_word(kind: str, key: str, value: Any, where: str = "") -> None:
    """Makes sure that an entry is set to a word that its class knows.

    Args:
        kind: The scheduler's class.
        key: The entry.
        value: What it is set to; what is no text is not looked at.
        where: For people: " in scheduler_config.json".

    Raises:
        ValueError: If it is another one, with those that there are.
    """
    words = words_of(kind).get(key)
    if words is None or not isinstance(value, str) or value in words:
        return
    raise ValueError(
        f"{key} is {value[:80]!r}{where}{nearest(value, words)}; for {kind} it must be "
        f"{' or '.join(words)}"
    )


def require_value(key: str, value: Any, written: str, usual: object) -> None:
    """Makes sure that an entry is set to a value of the kind that its class takes.

    Text that stands for a truth value is one in no library: `thresholding=no` would be on.

    Args:
        key: The entry.
        value: What it is set to.
        written: The same as it was written.
        usual: Its default.

    Raises:
        ValueError: If it is of another type, or a number that makes no sense there.
    """
    wanted = ""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_whole = isinstance(value, int) and is_number
    if isinstance(usual, bool):
        wanted = "" if isinstance(value, bool) else "true or false"
    elif key in NUMBERS and not (value is None and usual is None):
        wanted, makes_sense = NUMBERS[key]
        whole = isinstance(usual, int)
        wanted = "" if (is_whole if whole else is_number) and makes_sense(value) else wanted
    elif isinstance(usual, int):
        wanted = "" if is_whole else WHOLE
    elif isinstance(usual, float):
        wanted = "" if is_number else "a number"
    elif isinstance(usual, str):
        wanted = "" if isinstance(value, str) else "text"
    elif isinstance(usual, (list, tuple)):
        is_steps = isinstance(value, tuple) and all(type(step) is int for step in value)
        wanted = "" if is_steps else "a list of whole numbers"
    if wanted:
        raise ValueError(f"{key} is {written}; it must be {wanted}")


def require_words(kind: str, entries: Mapping[str, Any], own: str, said: Mapping[str, Any]) -> None:
    """Makes sure of all words in a configuration that a checkpoint came with.

    Args:
        kind: The class that is made of them.
        entries: What it is made of.
        own: The checkpoint's own class, whose words `said` are.
        said: What its scheduler_config.json says.

    Raises:
        ValueError: For the first that neither class knows.
    """
    where = " in the checkpoint's scheduler_config.json"
    for key, value in entries.items():
        if key not in said or said[key] != value or value in OF_ANY_FAMILY:
            continue
        if key == "beta_schedule" and entries.get("trained_betas") is not None:
            continue
        if key in CARRIED and any(value in words_of(k).get(key, ()) for k in _translated()):
            continue
        if value in words_of(own).get(key, ()):
            continue
        require_word(kind, key, value, where)
    variance = entries.get("variance_type")
    if variance in LEARNED and (said.get("variance_type") != variance or kind not in WITH_VARIANCE):
        raise ValueError(
            f"variance_type is {variance!r}, which is for a network that predicts a variance too; "
            f"{'the checkpoint does not say so of its' if kind in WITH_VARIANCE else kind} "
            f"{'network' if kind in WITH_VARIANCE else 'is given its noise alone; take ddpm'}"
        )


def _translated() -> tuple[str, ...]:
    return (
        "DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
        "DDPMScheduler",
    )  # fmt: skip
