"""Weights in several files: an index says which file holds which tensor, as diffusers writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.contained import require_plain_name
from ddim_core.safe_files.safe_load import read_weights
from ddim_core.safe_files.settings import read_settings

SHARDS_INDEX = ".index.json"
OF_INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")  # diffusers puts a variant before .json


def is_index(path: Path) -> bool:
    """Tells an index by its name."""
    return OF_INDEX.search(path.name) is not None


def shards_in(index: Path) -> list[Path]:
    """Returns the files beside an index that it names, by name.

    Raises:
        ValueError: If it is no index, or names a file that is not there or not beside it.
    """
    places = read_settings(index).get("weight_map")
    names = set(places.values()) if isinstance(places, dict) else set()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{index.name} must have a weight_map of weights to file names")
    for name in sorted(names):
        if not is_there(index.parent / require_plain_name(name, f"in {index.name} the name")):
            raise ValueError(f"{index.name} names {name!r}, which is no file beside it")
    return [index.parent / name for name in sorted(names)]


def read_shards(index: Path) -> Any:
    """Returns what all files hold that an index names; unchecked, as of `read_weights`.

    Raises:
        ValueError: As `shards_in` and `read_weights`; or if two files hold one weight.
    """
    state: dict[Any, Any] = {}
    for shard in shards_in(index):
        held = read_weights(shard)
        if not isinstance(held, dict) or held.keys() & state.keys():
            raise ValueError(f"{shard.name} is no state dict, or repeats weights of another file")
        state |= held
    return state
