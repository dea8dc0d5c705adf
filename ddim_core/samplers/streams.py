"""The random streams that a diffusers scheduler draws from on the way: each image's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def image_streams(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """Returns one CPU stream per image for a step's `generator`: functions of (seed, index).

    diffusers draws each image's noise from the generator at its place in the list, on the CPU, and
    moves it. The streams are fresh: one list serves one run. Torch's CPU generator takes the low
    32 bits of a seed only, so it is given a hash of both numbers; they are not `ImageNoise`'s
    streams, which x_T comes from.

    Args:
        seed: The cell's seed, 0 <= seed < 2^63.
        indices: The image indices of the batch, each in 0..2^63 - 1.

    Raises:
        ValueError: If a number lies outside its range.
    """
    for name, number in (("seed", seed), *(("image index", index) for index in indices)):
        if not 0 <= number < 2**63:
            raise ValueError(f"{name} is {number}; it must lie in 0..2^63 - 1")
    return [torch.Generator().manual_seed(_word(f"{seed} {index}")) for index in indices]


def _word(key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"sampler noise {key}".encode()).digest()[:4], "big")
