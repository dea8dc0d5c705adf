"""The random draws that belong to each image, and the arc between two such draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

ANTIPODAL = 1e-6
"""Angle in radians from exactly opposite below which no arc is the shortest."""


class ImageNoise:
    """Standard normal draws of a batch of images, one random stream per image.

    Image k owns the Philox4x64 stream (Salmon et al. 2011) with key (seed, k). A draw starts at a
    counter of its own: block 0 is x_T, block i + 1 is step i, and blocks are 2^192 apart. So a
    draw is a function of (seed, k, i) alone, whatever else is in the batch and in any order.
    The normals are NumPy's float32 ziggurat; they are made on the CPU, then moved.

    One object serves one thread: its generator is set to a new place for every draw.

    Args:
        seed: 0 <= seed < 2^63.
        indices: The image indices k of the batch, each in 0..2^63 - 1.
        shape: Shape of one image, without the batch.
        device: Where the draws go.

    Raises:
        ValueError: If the seed, an index or the shape lies outside its range.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
    ) -> None:
        _require_word("seed", seed)
        for index in indices:
            _require_word("image index", index)
        if any(side < 1 for side in shape):
            raise ValueError(f"shape of an image is {tuple(shape)}; every side must be 1 or more")
        self._seed = seed
        self._indices = tuple(indices)
        self._shape = tuple(shape)
        self._device = torch.device(device)
        # One generator is moved about: making one per draw takes four times as long, since NumPy
        # asks the system for entropy even when the key is given. A fresh state has an empty
        # buffer, so that setting it starts the next draw exactly at its counter.
        self._bits = np.random.Philox(0)
        self._place = self._bits.state
        self._normals = np.random.Generator(self._bits)

    def x_T(self) -> Tensor:  # noqa: N802 (the paper's name)
        """Returns the starting noise, float32 [len(indices), *shape]."""
        return self._draw(0)

    def __call__(self, i: int) -> Tensor:
        """Returns the draw of step i = 0, 1, ..., float32 [len(indices), *shape]."""
        _require_word("step", i)
        return self._draw(i + 1)

    def _draw(self, block: int) -> Tensor:
        draws = np.empty((len(self._indices), math.prod(self._shape)), dtype=np.float32)
        place = self._place
        place["state"]["counter"][3] = block
        place["state"]["key"][0] = self._seed
        for row, index in zip(draws, self._indices, strict=True):
            place["state"]["key"][1] = index
            self._bits.state = place
            self._normals.standard_normal(dtype=np.float32, out=row)
        batch = torch.from_numpy(draws).reshape(len(self._indices), *self._shape)
        return batch.to(self._device)


def _require_word(name: str, value: int) -> None:
    if not 0 <= value < 2**63:
        raise ValueError(f"{name} is {value}; it must lie in 0..2^63 - 1")


def slerp(a: Tensor, b: Tensor, w: float) -> Tensor:
    """Interpolates spherically between two batches of noise, image by image.

        sin((1 - w) theta) / sin(theta) a + sin(w theta) / sin(theta) b

    with theta the angle between the two flattened images. Source: Shoemake 1985; Song et al.
    2021 (arXiv:2010.02502), appendix D.5. Computed in float64; the angle is taken from chord and
    sum (Kahan), so that nearly parallel images interpolate as exactly as others.

    Args:
        a, b: [batch, ...], same shape.
        w: Weight in [0, 1]: 0 gives a, 1 gives b.

    Returns:
        [batch, ...] in the dtype of a.

    Raises:
        ValueError: If shapes differ, w lies outside [0, 1], or an image is zero or opposite to
            its partner, where no arc is the shortest.
    """
    if a.shape != b.shape:
        raise ValueError(f"shapes are {tuple(a.shape)} and {tuple(b.shape)}; they must be equal")
    if not 0.0 <= w <= 1.0:
        raise ValueError(f"w is {w}; it must lie in [0, 1]")
    flat_a, flat_b = (x.reshape(len(x), -1).double() for x in (a, b))
    norm_a, norm_b = flat_a.norm(dim=1, keepdim=True), flat_b.norm(dim=1, keepdim=True)
    if (norm_a == 0.0).any() or (norm_b == 0.0).any():
        raise ValueError("an image is all zero; it has no direction to interpolate from")
    unit_a, unit_b = flat_a / norm_a, flat_b / norm_b
    theta = 2.0 * torch.atan2(
        (unit_a - unit_b).norm(dim=1, keepdim=True), (unit_a + unit_b).norm(dim=1, keepdim=True)
    )
    if (theta > math.pi - ANTIPODAL).any():
        raise ValueError("two images are opposite to each other; no arc between them is shortest")
    weight_a = torch.where(theta == 0.0, 1.0 - w, ((1.0 - w) * theta).sin() / theta.sin())
    weight_b = torch.where(theta == 0.0, w, (w * theta).sin() / theta.sin())
    return (weight_a * flat_a + weight_b * flat_b).to(a.dtype).reshape(a.shape)
