"""PEFT's settings of a LoRA in a file of somebody else's: what of them decides what its numbers
mean, and nothing else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ddim_core.common.foreign import Content

# What peft makes of a file is decided by these settings alone; a stranger's patterns are never run.
SETTINGS: dict[str, tuple[str, ...]] = {
    "LORA": ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
             "lora_bias"),
    "LOHA": ("r", "alpha", "rank_pattern", "alpha_pattern", "use_effective_conv2d"),
    "LOKR": ("r", "alpha", "rank_pattern", "alpha_pattern", "use_effective_conv2d",
             "decompose_both", "decompose_factor"),
}  # fmt: skip
PATTERNS = ("rank_pattern", "alpha_pattern")
PLAIN_NAME = re.compile(r"[\w.^]+")
# A base that was changed before training, and other settings under which the same numbers mean
# something else.
MOVED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
OTHER_LORAS = ("use_qalora", "alora_invocation_tokens", "layer_replication")
LAYERS = re.compile(r"\.(?:lora_(?:A|B|magnitude_vector)|hada_w\d(?:_[ab])?|hada_t\d|lokr_[wt]\d"
                    r"(?:_[ab])?)(?:\.weight|\.bias)?$")  # fmt: skip
RANKED = re.compile(r"\.(?:lora_A|hada_w1_b)(?:\.weight)?$")  # whose rows are the rank


def layers_of(where: str, kind: str, names: Iterable[str]) -> list[str]:
    """Returns the layers that tensors of a LoRA, LoHa or LoKr in PEFT's names belong to, sorted.

    Raises:
        ValueError: If one belongs to none, or there are none; `where` names their file.
    """
    layers = sorted({LAYERS.sub("", name) for name in names})
    strange = [name for name in names if not LAYERS.search(name)]
    if strange or not layers:
        first = f", the first {strange[0][:80]}" if strange else ""
        raise ValueError(
            f"{where} holds {len(strange)} tensors that are no part of a {kind}"
            f"{first}; it must hold some of these, and nothing else"
        )
    return layers


def settings_of(
    where: str, kind: str, told: Content, shapes: Mapping[str, Sequence[int]]
) -> Content:
    """Returns those of `SETTINGS`, each of its kind and the ranks those of the tensors.

    Args:
        where: Where they stand, for people.
        kind: PEFT's name, a key of `SETTINGS`.
        told: What stands there.
        shapes: Of the tensors that they are of.

    Raises:
        ValueError: If one cannot be, belongs to other tensors, or says that the LoRA is of a kind
            that is not loaded.
    """
    start = told.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(MOVED_BASES):
        raise ValueError(
            f"init_lora_weights in {where} is {start[:40]!r}: it was trained over a changed base, "
            "and means nothing over the base itself; PEFT's save_pretrained("
            "path_initial_model_for_weight_conversion=...) writes a LoRA that does"
        )
    for name in OTHER_LORAS:
        if told.get(name):
            raise ValueError(f"{name} is set in {where}; only a LoRA without it is loaded")
    settings = {name: told[name] for name in SETTINGS[kind] if told.get(name) is not None}
    for name in PATTERNS:
        _require_names(f"{name} in {where}", settings.get(name, {}), len(shapes))
    for name, value in settings.items():
        of_layers = list(value.values()) if name in PATTERNS else [value]
        if not all(_is_right(name, one) for one in of_layers):
            raise ValueError(f"{name} in {where} is {str(value)[:80]}; that cannot be")
    by_name = [(re.compile(rf"(?:.*\.)?(?:{key})$"), rank)
               for key, rank in settings.get("rank_pattern", {}).items()]  # fmt: skip
    for name, shape in shapes.items():
        if RANKED.search(name) and shape:
            layer = RANKED.sub("", name)
            of_it = (rank for pattern, rank in by_name if pattern.match(layer))
            if (rank := next(of_it, settings.get("r", 8))) != shape[0]:
                raise ValueError(f"{where} says rank {rank} of {layer}; its tensor has {shape[0]}")
    return settings


def _is_right(name: str, value: Any) -> bool:
    """Tells whether a setting of PEFT's is of its kind: a flag, a count, a rank or an alpha."""
    if name.startswith(("use_", "decompose_both", "lora_bias")):
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if "alpha" in name:
        return math.isfinite(value) and value > 0
    return isinstance(value, int) and (name == "decompose_factor" or value > 0)


def _require_names(where: str, patterns: Any, most: int) -> None:
    if not isinstance(patterns, Mapping) or not all(map(PLAIN_NAME.fullmatch, patterns)):
        raise ValueError(f"{where} must map names of layers to numbers; patterns are not run")
    if len(patterns) > most:
        raise ValueError(f"{where} names {len(patterns)} layers, more than there are tensors")
