"""Which network a state dict holds: prefixes that wrappers put before names, and averages as lists.

DataParallel and torch.compile put `module.` and `_orig_mod.` before every name, Lightning the name
of the attribute that holds the network. Where a network begins, its format's `marks` show.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ddim_core.checkpoints.formats.registry import MARKS

WRAPPERS = ("module.", "_orig_mod.")
EMA = re.compile(r"(^|[._-])(ema|averaged|shadow)([._-]|$)", re.IGNORECASE)
SHADOW = "shadow_params"
AVERAGED_MODEL = "n_averaged"  # what torch's AveragedModel counts beside `module.`


def prefixes_of(state: Any) -> list[str]:
    """Returns what stands before the names of every network in a state dict; empty for none."""
    if not isinstance(state, Mapping):
        return []
    found = set()
    for name in state:
        ends = (m for m in MARKS if isinstance(name, str) and f".{name}".endswith(f".{m}"))
        if mark := next(ends, None):
            found.add(name.removesuffix(mark))
    return sorted(found)


def network_keys(content: Mapping[str, Any]) -> list[str]:
    """Returns the keys of a mapping under which there is a state dict of a network."""
    return [str(key) for key, value in content.items() if prefixes_of(value)]


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns a state dict without the prefixes of DataParallel and torch.compile."""
    names = dict(state)
    while names and any(all(n.startswith(w) for n in names) for w in WRAPPERS):
        names = {name.partition(".")[2]: weight for name, weight in names.items()}
    return names


def split_networks(state: Any, where: str) -> tuple[Any, Any]:
    """Returns the network in a state dict, and its moving average where it has both; else None.

    Args:
        state: Weights by name; what is no mapping stays what it is.
        where: What it is called in messages.

    Raises:
        ValueError: If it holds several networks, or weights that are of none.
    """
    if not isinstance(state, Mapping):
        return state, None
    prefixes = prefixes_of(state)
    if len(prefixes) <= 1 and (not prefixes or not _bare_name(prefixes[0])):
        kept = {_bare_name(str(n)): w for n, w in state.items() if n != AVERAGED_MODEL}
        return kept, None
    parts = {
        p: {n.removeprefix(p): w for n, w in state.items() if n.startswith(p)} for p in prefixes
    }
    averaged = [prefix for prefix in prefixes if EMA.search(prefix)]
    others = [prefix for prefix in prefixes if prefix not in averaged]
    if len(prefixes) > 2 or len(averaged) > 1 or len(others) > 1 or "" in prefixes:
        shown = ", ".join(repr(prefix) for prefix in prefixes)
        raise ValueError(
            f"{where} holds {len(prefixes)} networks, under {shown}; write the one that is meant "
            "into a file of its own"
        )
    left = [
        n for n in state if not n.startswith(tuple(prefixes)) and getattr(state[n], "ndim", 0) > 1
    ]
    if left:
        raise ValueError(
            f"{where} holds {len(left)} weights beside its U-Net under {prefixes[0]!r}, the first "
            f"of them {left[0]!r}: of another network, without which it may mean nothing; write "
            "the U-Net into a file of its own"
        )
    if not others:
        return parts[averaged[0]], None
    return parts[others[0]], parts[averaged[0]] if averaged else None


def average_list(value: Any) -> list[Tensor] | None:
    """Returns the weights of torch_ema and of diffusers' EMAModel: a list, in the order of
    `parameters()`; None if it is none."""
    if isinstance(value, Mapping) and isinstance(value.get(SHADOW), (list, tuple)):
        value = value[SHADOW]
    if isinstance(value, (list, tuple)) and value and all(isinstance(w, Tensor) for w in value):
        return list(value)
    return None


def named(weights: Sequence[Tensor], like: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Gives a list of weights the names of a network's, in their order.

    Raises:
        ValueError: If they differ in number or shapes.
    """
    if len(weights) != len(like):
        raise ValueError(
            f"{where} holds a list of {len(weights)} averaged weights; its network has {len(like)}"
        )
    for number, (weight, (name, expected)) in enumerate(zip(weights, like.items(), strict=True)):
        if weight.shape != expected.shape:
            raise ValueError(
                f"averaged weight {number} in {where} has shape {list(weight.shape)}; {name}, "
                f"which stands there in the network, has {list(expected.shape)}"
            )
    return dict(zip(like, weights, strict=True))


def _bare_name(name: str) -> str:
    prefix = re.match(r"((module|_orig_mod)\.)*", name)
    return name[prefix.end() :] if prefix else name
