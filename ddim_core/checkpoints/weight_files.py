"""Which files of a folder are its network's weights: whole, in shards, of a variant, of a training.

As diffusers: the shards that an index names before a single file beside them, safetensors before
pickles. Other than diffusers, the one variant that is there is taken without being named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ddim_core.checkpoints.state_names import EMA
from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.shards import SHARDS_INDEX, is_index, shards_in
from ddim_core.safe_files.weight_names import OF_TRAINING, WEIGHTS

STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
# NAME[.VARIANT].KIND; and its index, which has the variant before .json, or, by an older diffusers,
# before .index.
OF_WEIGHTS = re.compile(
    rf"({'|'.join(STEMS)})(\.([\w-]+))?\.(safetensors|bin)"
    r"|"
    rf"({'|'.join(STEMS)})\.(safetensors|bin)(\.([\w-]+))?\.index(\.([\w-]+))?\.json"
)
OF_SHARDS = re.compile(r"-\d+-of-\d+\.")
NOT_AVERAGED = "non_ema"


def has_plain(folder: Path, stems: tuple[str, ...]) -> bool:
    """Tells whether a folder holds weights of no variant, which are then its network's."""
    return "" in _by_variant(folder, stems)


def variants_in(folder: Path, stems: tuple[str, ...]) -> dict[str, Path]:
    """Returns files of the one variant of a network that has no plain files, in order of choice.

    Args:
        folder: The network's.
        stems: Of their names.

    Raises:
        ValueError: If there are several variants, or shards without the index that lists them.
    """
    found = _by_variant(folder, stems)
    if len(found) > 1:
        shown = ", ".join(repr(variant) for variant in found)
        raise ValueError(
            f"{folder.name} holds weights in {len(found)} variants ({shown}); keep one"
        )
    for stem in stems:
        _require_index(folder, stem, found)
    (files,) = found.values() or ({},)
    return dict(sorted(files.items(), key=lambda item: (".bin" in item[0], not is_index(item[1]))))


def _by_variant(folder: Path, stems: tuple[str, ...]) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = None if OF_SHARDS.search(path.name) else OF_WEIGHTS.fullmatch(path.name)
        if match and path.name.split(".")[0] in stems and is_there(path):
            variant = match[3] or match[8] or match[10] or ""
            if variant != NOT_AVERAGED:
                found.setdefault(variant, {})[path.name] = path
    return found


def _require_index(folder: Path, stem: str, found: Mapping[str, Mapping[str, Path]]) -> None:
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    lone = [p.name for p in names if OF_SHARDS.search(p.name) and re.match(rf"{stem}[.-]", p.name)]
    if lone and not any(is_index(path) for files in found.values() for path in files.values()):
        raise ValueError(
            f"{folder.name} holds {lone[0]}, a part of a network's weights, and no index "
            f"({stem}.safetensors{SHARDS_INDEX}) that names all parts"
        )


def weights_in(files: Mapping[str, Path], prefix: str, names: tuple[str, ...]) -> Path | None:
    """Returns the file of a network's weights, or their index; None if there is none.

    Args:
        files: Of a checkpoint, by part and name.
        prefix: Of the network's part.
        names: In order of choice; after them those of a variant.
    """
    chosen = next((files[prefix + name] for name in names if prefix + name in files), None)
    others = (files[key] for key in files if key.startswith(prefix))
    fitting = (path for path in others if OF_WEIGHTS.fullmatch(path.name))
    whole = (p for p in fitting if NOT_AVERAGED not in p.name and not OF_SHARDS.search(p.name))
    return chosen or next(whole, None)


def flat_weights(folder: Path) -> dict[str, Path]:
    """Returns the weights in a folder without parts, as Accelerate and single files have them.

    Returns:
        `weights`, a file or an index with its `shard/NAME`s; and `average`, where one of two files
        is named as the moving average of the other. Empty where there are none.

    Raises:
        ValueError: If there are several, and none is the others' average.
    """
    named = [p for p in sorted(folder.iterdir()) if p.suffix in WEIGHTS or is_index(p)]
    there = [path for path in named if is_there(path)]
    candidates = [p for p in there if p.suffix in WEIGHTS and not OF_TRAINING.fullmatch(p.name)]
    shards: dict[str, Path] = {}
    for index in (path for path in there if is_index(path)):
        parts = shards_in(index)
        shards |= {f"shard/{part.name}": part for part in parts}
        whole = index.name.partition(".index")[0]  # diffusers takes the shards
        candidates = [p for p in candidates if p not in parts and p.name != whole] + [index]
    averages = [path for path in candidates if EMA.search(path.name.partition(".")[0])]
    others = [path for path in candidates if path not in averages]
    if len(averages) == len(others) == 1:
        return {"weights": others[0], "average": averages[0], **shards}
    if len(candidates) > 1:
        names = ", ".join(path.name for path in candidates[:3])
        raise ValueError(f"{folder.name} holds {len(candidates)} weights files ({names}); name one")
    return {"weights": candidates[0], **shards} if candidates else {}


def save_state(state: dict[str, Tensor], path: Path) -> None:
    """Writes weights as safetensors; weights that share memory are written each."""
    own = {name: weight.clone() for name, weight in state.items()}
    safetensors.torch.save_file(own, path, metadata={"format": "pt"})


def save_settings(content: Mapping[str, Any], path: Path) -> None:
    """Writes settings as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n")
