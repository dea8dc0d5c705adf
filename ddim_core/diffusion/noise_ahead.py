"""Noise drawn by threads while a card takes a step: the same draws, before they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from os import cpu_count

import torch
from torch import Tensor

from ddim_core.diffusion.noise import ImageNoise

MOST_THREADS = 8
START = -1  # stands for x_T among the steps
_drawing = ThreadPoolExecutor(min(MOST_THREADS, cpu_count() or 1), "noise")


class NoiseAhead:
    """The draws of `ImageNoise`, where the draw of step i + 1 is made while step i is taken, and
    x_T from the moment this object is made.

    The draws are the same on every device, for however many threads. They are made in pinned memory
    and sent without waiting.

    Args:
        seed, indices, shape, device: As of `ImageNoise`.
        n_draws: How many steps add noise.

    Raises:
        ValueError: As `ImageNoise`.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str,
        n_draws: int,
    ) -> None:
        self._device = torch.device(device)
        self._n_draws = n_draws
        share = -(-len(indices) // MOST_THREADS)
        self._rows = [slice(i, i + share) for i in range(0, len(indices), share)]
        self._noise = [ImageNoise(seed, indices[rows], shape) for rows in self._rows]
        self._shape = (len(indices), *shape)
        self._coming = {START: self._begun(START)}

    def x_T(self) -> Tensor:  # noqa: N802 (the paper's name)
        """Returns the starting noise, float32 [len(indices), *shape]."""
        return self._come(START, 0)

    def __call__(self, i: int) -> Tensor:
        """Returns the draw of step i = 0, 1, ..., float32 [len(indices), *shape]."""
        return self._come(i, i + 1)

    def _come(self, i: int, then: int) -> Tensor:
        if i not in self._coming:  # asked out of order: a stream draws one thing at a time
            for _, others in self._coming.values():
                wait(others)
            self._coming[i] = self._begun(i)
        made, parts = self._coming.pop(i)
        for part in parts:
            part.result()
        if then < self._n_draws:
            self._coming[then] = self._begun(then)
        return made.to(self._device, non_blocking=True)

    def _begun(self, i: int) -> tuple[Tensor, list[Future[None]]]:
        made = torch.empty(self._shape, pin_memory=self._device.type == "cuda")
        held = made.numpy()

        def draw(noise: ImageNoise, rows: slice) -> None:
            held[rows] = (noise.x_T() if i == START else noise(i)).numpy()

        drawn = [_drawing.submit(draw, *each) for each in zip(self._noise, self._rows, strict=True)]
        return made, drawn
