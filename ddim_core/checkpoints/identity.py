"""The identity of a checkpoint's content: its tensors and settings, not the bytes of its files.

Saving a checkpoint again may change a file's metadata, the order of its tensors, the formatting of
its JSON or the library version noted there, and changes nothing that is sampled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import is_there, read_json
from ddim_core.safe_files.claims.tensor_headers import tensors_in
from ddim_core.safe_files.safe_load import read_weights
from ddim_core.safe_files.weight_names import PICKLES, TENSORS

TEXTS = frozenset({".txt", ".model"})  # of tokenizers
INDEX = ".index.json"  # which shard holds which tensor: a matter of files
PIPELINE = "model_index.json"
PLAIN = (bool, int, float, str, bytes, type(None))
# What JSON files say beside the settings: who wrote them, and how far training had come.
ABOUT = frozenset({"_diffusers_version", "_name_or_path", "transformers_version", "training_step"})


def weights_digest(checkpoint: Path) -> str:
    """Returns what identifies a checkpoint: equal for every copy and every re-saving of it.

    The sha256 over its tensors (place, name, number format, shape, bytes; in order of name, however
    they are spread over files) and its settings (JSON, without library versions and training step).
    Of a pipeline only what `model_index.json` names counts; optimiser states beside it do not, and
    pickled weights beside safetensors do not. Another number format is another checkpoint.

    Args:
        checkpoint: A folder in diffusers' format, or one file of weights.

    Raises:
        ValueError: If there is nothing there, it holds no weights, or a file of weights is cut
            short or damaged.
    """
    files = _files(checkpoint)
    tensor_files = [f for f in files if f.suffix == TENSORS]
    weights = tensor_files or [f for f in files if f.suffix in PICKLES]
    if not weights:
        raise ValueError(f"{str(checkpoint)!r} holds no weights; a checkpoint has .safetensors")
    root = checkpoint if checkpoint.is_dir() else checkpoint.parent
    parts: list[list[Any]] = []
    for file in weights:
        place = file.parent.relative_to(root).as_posix()
        parts += [[place, *tensor] for tensor in _tensors(file)]
    for file in files:
        if file.suffix == ".json" and not file.name.endswith(INDEX):
            settings = _settings(file)
            parts += [[file.relative_to(root).as_posix(), settings]] if settings else []
        elif file.suffix in TEXTS:
            parts.append([file.relative_to(root).as_posix(), file_digest(file)])
    text = json.dumps(sorted(parts, key=json.dumps), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _files(checkpoint: Path) -> list[Path]:
    """The files that count, in order of name; hidden ones never do."""
    if is_there(checkpoint):
        return [checkpoint]
    if not checkpoint.is_dir():
        raise ValueError(f"there is no checkpoint {str(checkpoint)!r}")
    inside = {p: p.relative_to(checkpoint).parts for p in checkpoint.rglob("*") if p.is_file()}
    seen = {p: parts for p, parts in inside.items() if not any(x.startswith(".") for x in parts)}
    if is_there(checkpoint / PIPELINE):
        components = set(_json(checkpoint / PIPELINE))
        seen = {p: x for p, x in seen.items() if len(x) == 1 or x[0] in components}
        seen = {p: x for p, x in seen.items() if len(x) > 1 or p.suffix == ".json"}
    return sorted(seen)


def _tensors(file: Path) -> Iterator[list[Any]]:
    """Yields [name, number format, shape, sha256 of the bytes] of every tensor in a file."""
    if file.suffix == TENSORS:
        try:
            with tensors_in(file) as content:
                for name in content.keys():  # noqa: SIM118 (it is no mapping)
                    yield _described(name, content.get_tensor(name))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file.name} is cut short or damaged: {error}") from error
        return
    try:
        loaded = read_weights(file)
    except ValueError:
        yield ["", "file", [], file_digest(file)]  # what may not be unpickled counts by its bytes
        return
    yield from _walk("", loaded)


def _walk(name: str, value: Any) -> Iterator[list[Any]]:
    if isinstance(value, torch.Tensor):
        yield _described(name, value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(f"{name}/{key}", item)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for i, item in enumerate(value):
            yield from _walk(f"{name}/{i}", item)
    else:
        told = repr(value) if isinstance(value, PLAIN) else ""  # others have an address as theirs
        yield [name, type(value).__name__, [], told]


def _described(name: str, tensor: torch.Tensor) -> list[Any]:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    content = hashlib.sha256(memoryview(flat.numpy())).hexdigest()  # type: ignore[arg-type]
    return [name, str(tensor.dtype), list(tensor.shape), content]


def _settings(file: Path) -> Any:
    content = _json(file)
    if not isinstance(content, dict):
        return content
    return {name: value for name, value in content.items() if name not in ABOUT}


def _json(file: Path) -> Any:
    try:
        return read_json(file)
    except (ValueError, OSError) as error:
        raise ValueError(f"{file.name} is not whole: {error}") from error
