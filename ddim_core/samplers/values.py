"""What the entries of a scheduler's configuration may be set to, where that is one of a few words.

Diffusers says it by the types of its constructors where it says it at all; some classes take any
word there and do as if another stood in its place.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ddim_core.common.checks import nearest
from ddim_core.samplers.catalogue import class_entries

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
LEARNED = ("learned", "learned_range")


@cache
def words_of(kind: str) -> dict[str, tuple[str, ...]]:
    """Returns the words that a scheduler class takes, by entry."""
    import diffusers.schedulers

    known = class_entries(kind)
    found = {key: words for key, words in UNTYPED.items() if key in known}
    made = inspect.unwrap(getattr(diffusers.schedulers, kind).__init__)
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
    if variance in LEARNED:
        raise ValueError(
            f"variance_type is {variance!r}, which is for a network that predicts a variance too; "
            "such a network is not sampled by schedulers of diffusers here"
        )


def _translated() -> tuple[str, ...]:
    return (
        "DPMSolverMultistepScheduler", "DEISMultistepScheduler", "UniPCMultistepScheduler",
        "DDPMScheduler",
    )  # fmt: skip
