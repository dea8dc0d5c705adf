"""LoRA files that any trainer wrote: found in a folder, their headers looked over, their bytes
read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from ddim_core.common.digest import digest
from ddim_core.common.foreign import Content
from ddim_core.common.plain_files import (
    is_there,
    parse_json,
    read_bytes,
    require_plain_tree,
    shown_name,
)
from ddim_core.safe_files.claims.tensor_headers import tensors_in
from ddim_core.safe_files.loras.kinds import (
    PEFT_LEVEL,
    TENSOR_NAME,
    TEXT_LEVEL,
    lycoris_kind,
    require_kind,
)
from ddim_core.safe_files.loras.order import CHECKPOINT, Numbered, epochs_of
from ddim_core.safe_files.loras.settings import SETTINGS, layers_of, settings_of
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.weight_names import PICKLES, TENSORS

ADAPTER, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # of PEFT
OF_FOLDERS = ("pytorch_lora_weights.safetensors", ADAPTER)  # the one file of a step's folder
METADATA = "lora_adapter_metadata"  # in a file's header: diffusers' settings of each network
PEFT = "peft_adapter_config"  # in a file's header: it is in PEFT's layout, and so made
MOST_EPOCHS = 200
# Bits that are all set in what is not finite (of integers none), and integers of the same width.
EXPONENTS = {
    "F64": (np.int64, 0x7FF0000000000000), "F32": (np.int32, 0x7F800000),
    "F16": (np.int16, 0x7C00), "BF16": (np.int16, 0x7F80),
    "F8_E5M2": (np.int8, 0x7C), "F8_E4M3": (np.int8, 0x7F),
    "I64": (np.int64, 0), "I32": (np.int32, 0), "I16": (np.int16, 0), "I8": (np.int8, 0),
}  # fmt: skip
# The first word of layers of the networks that draw; no text encoder has one of that name.
DRAWS = re.compile(r"(?:(?:down|up)_blocks|mid_block|conv_(?:in|out)|time_embedding|proj_out"
                   r"|(?:single_)?transformer_blocks|x_embedder|context_embedder)\.")  # fmt: skip
OF_RANK = ("lora_A", "lora_down", "lora.down", ".hada_w1_b", ".lokr_w1_b", ".lokr_w2_b")
TEXTS = ("text_encoder", "lora_te", "text_model", "encoder_layers")


@dataclass(frozen=True)
class EpochFile:
    """A file of a LoRA.

    Attributes:
        path: Its weights, a .safetensors file.
        name: For people: its file's name, or its folder's where all files are called alike.
        number: Epoch or step, as its name says; None of the last, which trainers do not number.
        series: The training that it is from: its folder, and its name without the number.
        config: PEFT's adapter_config.json beside it; None of other layouts.
    """

    path: Path
    name: str
    number: int | None
    series: str
    config: Path | None = None


def epoch_files(place: Path) -> list[EpochFile]:
    """Returns the LoRA files of a place, those of one training in its order.

    Args:
        place: A .safetensors file; a folder of such files, one an epoch (sd-scripts, ai-toolkit);
            a folder of folders with `pytorch_lora_weights.safetensors` (diffusers' scripts) or
            `adapter_model.safetensors` (PEFT); or one of these.

    Raises:
        ValueError: If there is no LoRA file, it is a pickle, or nothing tells the order, with what
            would be right.
    """
    if is_there(place):
        return _in_order([place])
    if not place.is_dir():
        raise ValueError(
            f"there is no file or folder {str(place)!r}; give a LoRA's .safetensors file or the "
            "folder of its epochs"
        )
    require_plain_tree(place)
    inside = sorted(place.iterdir())
    found = [path for path in inside if path.suffix == TENSORS and is_there(path)]
    for folder in (path for path in inside if path.is_dir()):
        found += [folder / name for name in OF_FOLDERS if is_there(folder / name)]
    if not found:
        raise ValueError(_nothing(place, inside))
    if len(found) > MOST_EPOCHS:
        raise ValueError(
            f"{shown_name(place)} holds {len(found)} LoRA files; at most {MOST_EPOCHS} are compared"
        )
    return _in_order(found)


def require_lora(file: EpochFile) -> Content:
    """Makes sure, by its header alone, that a file holds a LoRA that can be loaded.

    Returns:
        What its header must say instead, under `PEFT` or `METADATA`; empty where it may stay.

    Raises:
        ValueError: If it is damaged, holds no LoRA, or one of a kind that nothing here loads; the
            kind is named with the nearest form that would do.
    """
    shapes, header = _header(file)
    names = list(shapes)
    if strange := [name for name in names if not TENSOR_NAME.fullmatch(name)]:
        raise ValueError(f"{file.name} has a tensor {strange[0][:80]!r}, which is no layer's name")
    if empty := [name for name, shape in shapes.items() if 0 in shape]:
        raise ValueError(f"{file.name} has a tensor {empty[0][:80]!r} without numbers")
    if file.config is not None:
        return {PEFT: _peft_settings(file, shapes)}
    if PEFT in header:
        raise ValueError(f"the header of {file.name} holds {PEFT}, which is set here alone")
    require_kind(file.name, names)
    if METADATA not in header:
        return {}
    return {METADATA: _diffusers_settings(file.name, header[METADATA], shapes)}


def shapes_of(file: EpochFile) -> dict[str, list[int]]:
    """Returns the shapes of a file's tensors by their names.

    Raises:
        ValueError: If it is damaged.
    """
    return _header(file)[0]


def lora_bytes(file: EpochFile) -> bytes:
    """Returns the content of a LoRA file as `ddim_core.pipelines.loras` lays it over a pipeline:
    itself, or where settings belong to it with nothing but them in the header.

    Raises:
        ValueError: As `require_lora`; or if an alpha is not finite or not above 0. Whether the
            layers are finite is left to `require_finite`: a training that diverged has a file too.
    """
    told = require_lora(file)
    content = read_bytes(file.path)
    alphas = [tensor for tensor in header_of(content)[0] if tensor.endswith(".alpha")]
    _require_numbers(file.name, content, alphas)
    return _with_header(content, told) if told else content


def content_digests(place: Path) -> list[str]:
    """Returns the digests of the LoRA files of a file or folder as `lora_bytes` has them, by which
    cells name them; none where there is no LoRA."""
    try:
        return [sha256(lora_bytes(file)).hexdigest() for file in epoch_files(place)]
    except ValueError:
        return []


def header_of(content: bytes) -> tuple[Content, bytes]:
    """Returns the header of a safetensors file that was opened before, and the numbers after it."""
    stop = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:stop]), content[stop:]


def is_plain(content: bytes) -> bool:
    """Tells whether plain diffusers loads a LoRA as it is laid over here; of LoKr it tells."""
    header = header_of(content)[0]
    told = header.pop("__metadata__", {})
    return PEFT not in told and (METADATA in told or lycoris_kind(header) in (None, "LOKR"))


def touches_texts(content: bytes) -> bool:
    """Tells whether a LoRA changes text encoders, so that prompts are encoded with it.

    A file of PEFT's does not say which network it is of: where its layers are not surely a
    denoiser's, they may be an encoder's. (Prompts are then encoded anew; what does not belong to
    an encoder changes nothing of them.)
    """
    names = [name for name in header_of(content)[0] if name != "__metadata__"]
    return any(word in name for name in names for word in TEXTS) or any(
        name.startswith(PEFT_LEVEL) and not DRAWS.match(name, len(PEFT_LEVEL)) for name in names
    )


def ranks_of(content: bytes) -> set[int]:
    """Returns the ranks of a LoRA's layers, as the shapes of A say (rows of A, or of LoHa's and
    LoKr's second factors)."""
    header = header_of(content)[0]
    return {
        told["shape"][0]
        for name, told in header.items()
        if any(part in name for part in OF_RANK) and told["shape"]
    }


def layout_of(content: bytes) -> str:
    """Returns a digest of what decides which networks a LoRA fits: its tensors' names, shapes and
    types, and PEFT's settings."""
    header = header_of(content)[0]
    settings = header.pop("__metadata__", {}).get(PEFT)
    shapes = [[name, told["dtype"], told["shape"]] for name, told in sorted(header.items())]
    return digest(shapes, settings)


def _header(file: EpochFile) -> tuple[dict[str, list[int]], dict[str, str]]:
    try:
        with tensors_in(file.path, "np") as content:
            shapes = {name: content.get_slice(name).get_shape() for name in list(content.keys())}
            return shapes, content.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file.name} is no whole safetensors file: {error}") from error


def _with_header(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    header, numbers = header_of(content)
    others = header.get("__metadata__", {}) if METADATA in metadata else {}
    told = {name: json.dumps(value, sort_keys=True) for name, value in metadata.items()}
    header["__metadata__"] = others | told
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + numbers


def _in_order(paths: Sequence[Path]) -> list[EpochFile]:
    names = {path: _name(path) for path in paths}
    found = [_file(path, names[path], told) for path, told in epochs_of(names).items()]
    return sorted(
        found, key=lambda one: (one.series, one.number is None, one.number or 0, one.name)
    )


def _name(path: Path) -> str:
    return path.parent.name or path.stem if path.name in OF_FOLDERS else path.stem


def _file(path: Path, name: str, told: Numbered) -> EpochFile:
    if path.suffix in PICKLES:
        raise ValueError(
            f"{shown_name(path)} is a pickle, which can run code and is not opened; save its "
            "tensors as .safetensors (safetensors.torch.save_file) and give that"
        )
    if path.suffix != TENSORS:
        raise ValueError(f"{shown_name(path)} is no .safetensors file, as a LoRA must be")
    config = path.with_name(CONFIG) if path.name == ADAPTER else None
    if config is not None and not is_there(config):
        raise ValueError(
            f"{shown_name(path)} is a file of PEFT's, and its {CONFIG} is not beside it; it says "
            "how much of the LoRA counts"
        )
    series = path.parent / told.series
    if path.name in OF_FOLDERS:
        of = "" if told.series == CHECKPOINT else told.series
        series = path.parent if told.number is None else path.parent.parent / of
    return EpochFile(path, name, told.number, str(series), config)


def _nothing(place: Path, inside: Sequence[Path]) -> str:
    pickles = [path.name for path in inside if path.suffix in PICKLES]
    if pickles:
        return (
            f"{shown_name(place)} holds no .safetensors file, but the pickle {pickles[0]}, which "
            "can run code and is not opened; save its tensors as .safetensors"
        )
    parts = [path.name for path in inside if path.is_dir() and is_there(path / CONFIG)]
    more = f" (there is {parts[0]}/{CONFIG} without its {ADAPTER})" if parts else ""
    return (
        f"{shown_name(place)} holds no LoRA{more}; there must be .safetensors files, or folders "
        f"with {' or '.join(OF_FOLDERS)}"
    )


def require_finite(name: str, content: bytes) -> None:
    """Makes sure that all numbers of a LoRA's file, called `name`, are finite.

    Raises:
        ValueError: If one is not.
    """
    header = header_of(content)[0]
    _require_numbers(name, content, [tensor for tensor in header if tensor != "__metadata__"])


def _require_numbers(name: str, content: bytes, tensors: Sequence[str]) -> None:
    header, numbers = header_of(content)
    for tensor in tensors:
        told = header[tensor]
        if told["dtype"] not in EXPONENTS:
            continue
        width, exponent = EXPONENTS[told["dtype"]]
        bits = np.frombuffer(numbers[slice(*told["data_offsets"])], width)
        if exponent and ((bits & exponent) == exponent).any():
            raise ValueError(f"{tensor} in {name} is not finite; its training went wrong")
        if tensor.endswith(".alpha") and not (bits > 0).all():  # the sign is the first bit of both
            raise ValueError(f"{tensor} in {name} is not above 0; an alpha must be")


def _peft_settings(file: EpochFile, shapes: Mapping[str, Sequence[int]]) -> Content:
    """What of an adapter_config.json decides what the file's numbers mean, with the layers that it
    is of by name."""
    assert file.config is not None
    told = read_settings(file.config)
    kind = told.get("peft_type")
    if kind not in SETTINGS:
        raise ValueError(
            f"peft_type in {file.name}/{CONFIG} is {kind!r}; {', '.join(SETTINGS)} are loaded"
        )
    of_layers = {name.removeprefix(PEFT_LEVEL): shape for name, shape in shapes.items()}
    layers = layers_of(f"{file.name}/{ADAPTER}", kind, of_layers)
    settings = settings_of(f"{file.name}/{CONFIG}", kind, told, of_layers)
    return {"peft_type": kind, "target_modules": layers, **settings}


def _diffusers_settings(name: str, text: str, shapes: Mapping[str, Sequence[int]]) -> Content:
    """The same of what diffusers wrote into a header, each name after its network's. (diffusers
    makes PEFT's configuration of all that stands there.)"""
    where = f"{METADATA} in the header of {name}"
    told = parse_json(text, where)
    if not isinstance(told, dict):
        raise ValueError(f"{where} is no mapping of names")
    found: Content = {}
    for network in sorted({key.partition(".")[0] for key in told}):
        level = f"{network}."
        inside = {key.removeprefix(level): v for key, v in shapes.items() if key.startswith(level)}
        if inside:
            kind = "LOKR" if any(".lokr_" in key for key in inside) else "LORA"
            layers = [x.removeprefix(TEXT_LEVEL) for x in layers_of(name, kind, inside)]
            own = {key.removeprefix(level): v for key, v in told.items() if key.startswith(level)}
            settings = {"target_modules": layers, **settings_of(where, kind, own, inside)}
            found |= {level + key: value for key, value in settings.items()}
    return found
