"""LoRA files that lie over a pipeline: brought into the store, and named for people."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ddim_core.common.plain_files import is_there
from ddim_core.common.printable import printable
from ddim_core.safe_files.loras.files import epoch_files, lora_bytes, require_finite
from ddim_core.safe_files.weight_names import TENSORS
from tasks.storage import store

KIND = "lora"


@dataclass(frozen=True)
class StoredLora:
    """A LoRA file in the store.

    Attributes:
        artifact: Digest of its bytes.
        name: Its file's name.
        scale: How much of it counts where its axis is at 1.
    """

    artifact: str
    name: str
    scale: float


def split_lora(text: str) -> tuple[str, float]:
    """Reads `FILE` or `FILE:SCALE`.

    Raises:
        ValueError: If there is no such file, it is none of safetensors, or the scale is no number.
    """
    place, colon, scale = text.rpartition(":")
    if not colon or is_there(Path(text)):
        place, scale = text, "1"
    try:
        number = float(scale)
    except ValueError:
        raise ValueError(f"lora is {text!r}; after the colon there must be a number") from None
    if not math.isfinite(number):
        raise ValueError(f"lora is {text!r}; its scale must be finite")
    if not is_there(Path(place)) or Path(place).suffix != TENSORS:
        raise ValueError(f"lora is {text!r}; there must be a .safetensors file of that name")
    return place, number


def store_lora(text: str) -> StoredLora:
    """Brings a LoRA file into the store.

    Raises:
        ValueError: As `split_lora`; or if the file is damaged, holds no LoRA, or not finite ones.
    """
    place, scale = split_lora(text)
    (file,) = epoch_files(Path(place))
    content = lora_bytes(file)
    require_finite(file.name, content)
    artifact = store.put(content, KIND).artifact
    return StoredLora(artifact, printable(file.path.name), scale)
