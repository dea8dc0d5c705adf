"""The random draws that belong to each image, and the arc between two such draws."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 1024
"""Numbers drawn at once per image: finding a place in a stream costs as much as about 100."""

ANTIPODAL = 1e-6
"""Angle in radians from exactly opposite below which no arc is the shortest."""


class ImageNoise:
    """Standard normal draws of a batch of images, one random stream per image.

    Image k owns the Philox4x64 stream (Salmon et al. 2011) with key (seed, k), cut into blocks
    2^192 counters apart: block 0 is x_T, each further one holds as many whole steps as fit into
    `BLOCK` numbers, at least one. So a draw is a function of (seed, k, i, shape) alone, whatever
    else is in the batch and in any order. The normals are NumPy's float32 ziggurat; they are
    made on the CPU, then moved.

    One object serves one thread: it moves one generator about and keeps the latest block.

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
        self._steps_per_block = max(1, BLOCK // math.prod(self._shape))
        self._latest: tuple[int, NDArray[np.float32]] | None = None

    def x_T(self) -> Tensor:  # noqa: N802 (the paper's name)
        """Returns the starting noise, float32 [len(indices), *shape]."""
        return self._batch(self._draw(0, 1)[:, 0])

    def __call__(self, i: int) -> Tensor:
        """Returns the draw of step i = 0, 1, ..., float32 [len(indices), *shape]."""
        _require_word("step", i)
        block, step = divmod(i, self._steps_per_block)
        if self._latest is None or self._latest[0] != block:
            self._latest = (block, self._draw(block + 1, self._steps_per_block))
        return self._batch(self._latest[1][:, step].copy())

    def _draw(self, block: int, n_steps: int) -> NDArray[np.float32]:
        draws = np.empty((len(self._indices), n_steps, math.prod(self._shape)), dtype=np.float32)
        place = self._place
        place["state"]["counter"][3] = block
        place["state"]["key"][0] = self._seed
        for row, index in zip(draws, self._indices, strict=True):
            place["state"]["key"][1] = index
            self._bits.state = place
            self._normals.standard_normal(dtype=np.float32, out=row)
        return draws

    def _batch(self, draws: NDArray[np.float32]) -> Tensor:
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
