"""What the recorder of LyCORIS and its test agree on: which layers, and their weights."""

from __future__ import annotations

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
LINEAR, WIDE = f"{BLOCK}.attn1.to_q", f"{BLOCK}.ff.net.0.proj"
CONV = "down_blocks.1.resnets.0.conv1"
SHAPES = {LINEAR: (16, 16), WIDE: (128, 16), CONV: (16, 8, 3, 3)}
# By case: what LyCORIS' module is told, and the layers.
CASES = {
    "loha": ({"lora_dim": 2, "alpha": 3}, (LINEAR, WIDE, CONV)),
    "loha_tucker": ({"lora_dim": 2, "alpha": 1, "use_tucker": True}, (LINEAR, CONV)),
    "lokr": ({"lora_dim": 2, "alpha": 3, "factor": 2}, (LINEAR, WIDE, CONV)),
    "lokr_both": ({"lora_dim": 1, "alpha": 3, "decompose_both": True}, (LINEAR, WIDE)),
    "lokr_tucker": ({"lora_dim": 1, "alpha": 2, "factor": 2, "use_tucker": True}, (CONV,)),
    "lokr_whole": (
        {"lora_dim": 4, "alpha": 2, "full_matrix": True, "unbalanced_factorization": True},
        (LINEAR, WIDE, CONV),
    ),
    "lora": ({"lora_dim": 2, "alpha": 3}, (LINEAR, WIDE, CONV)),
    "dora": ({"lora_dim": 2, "alpha": 3, "weight_decompose": True}, (LINEAR, WIDE, CONV)),
}  # fmt: skip


def drawn(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Numbers of a name, by a generator whose stream is fixed for ever."""
    return (0.3 * np.random.RandomState(crc32(name.encode())).randn(*shape)).astype(np.float32)


def given(layer: str) -> NDArray[np.float32]:
    """What a layer is given."""
    shape = SHAPES[layer]
    return drawn(f"input of {layer}", (2, shape[1]) if len(shape) == 2 else (2, shape[1], 5, 5))
