"""Noise between noise: a line between two draws, and a grid between four, along great circles."""

from __future__ import annotations

import torch
from torch import Tensor

from ddim_core.diffusion.noise import slerp


def line(a: Tensor, b: Tensor, n: int) -> Tensor:
    """Returns n draws from a to b, both ends among them, evenly along the arc of `slerp`.

    Source: Song et al. 2021 (arXiv:2010.02502), figure 6 and appendix D.5.

    Args:
        a, b: One draw each [...], no batch dimension.
        n: At least 2.

    Returns:
        [n, ...] in the dtype of a.

    Raises:
        ValueError: If n is below 2; else as `slerp`.
    """
    if n < 2:
        raise ValueError(f"n is {n}; a line needs at least its 2 ends")
    return torch.cat([slerp(a[None], b[None], i / (n - 1)) for i in range(n)])


def corner_grid(corners: Tensor, n: int) -> Tensor:
    """Returns an n x n grid of draws between four: first along both sides, then across.

    Args:
        corners: [4, ...]: top left, top right, bottom left, bottom right.
        n: Draws along each side, at least 2.

    Returns:
        [n, n, ...], row by row; its corners are the four.

    Raises:
        ValueError: If there are not four corners; else as `line`.
    """
    if len(corners) != 4:
        raise ValueError(f"there are {len(corners)} corners; a grid lies between 4")
    top_left, top_right, bottom_left, bottom_right = corners
    left, right = line(top_left, bottom_left, n), line(top_right, bottom_right, n)
    return torch.stack([line(a, b, n) for a, b in zip(left, right, strict=True)])
