"""What the U-Nets of EDM and EDM2 are made of: the places of their layers, and EDM's layers.

Source: Karras et al. 2022 (arXiv:2206.00364), appendix F; names of the weights as in NVlabs/edm.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 64  # channels of a head of attention, but in SongUNet, which has one head
ENDS_AT = 10000.0  # positions, of the sinusoids


@dataclass(frozen=True)
class Place:
    """One layer of a U-Net.

    Attributes:
        side: Pixels along a side, where it works.
        what: `conv`, `down`, `up`, `in0`, `in1`, or `block` and a number.
        n_in, n_out: Its channels.
    """

    side: int
    what: str
    n_in: int
    n_out: int

    @property
    def name(self) -> str:
        return f"{self.side}x{self.side}_{self.what}"

    @property
    def is_block(self) -> bool:
        """Whether it is one of a level's own blocks; those of the decoder take a skip."""
        return self.what.startswith("block")


def encoder_places(
    side: int, n_channels: int, n_first: int, widths: Sequence[int], n_blocks: int
) -> Iterator[Place]:
    """Yields the layers of an encoder, in order; the output of each is a skip."""
    yield Place(side, "conv", n_channels, n_first)
    now = n_first
    for level, width in enumerate(widths):
        if level:
            yield Place(side >> level, "down", now, now)
        for i in range(n_blocks):
            yield Place(side >> level, f"block{i}", now, width)
            now = width


def decoder_places(
    side: int, skips: list[int], widths: Sequence[int], n_blocks: int
) -> Iterator[Place]:
    """Yields the layers of a decoder, in order; each block takes the last skip that is left."""
    now, left = widths[-1], list(skips)
    for level in reversed(range(len(widths))):
        if level == len(widths) - 1:
            yield from (Place(side >> level, what, now, now) for what in ("in0", "in1"))
        else:
            yield Place(side >> level, "up", now, now)
        for i in range(n_blocks + 1):
            yield Place(side >> level, f"block{i}", now + left.pop(), widths[level])
            now = widths[level]


def attends_at(place: Place, resolutions: Sequence[int]) -> bool:
    """Tells whether a layer attends: the decoder's first, and blocks at these resolutions."""
    return place.what == "in0" or (place.is_block and place.side in resolutions)


class Conv(nn.Module):
    """A convolution, after its input is doubled or halved by a filter; of kernel 0 that alone.

    Args:
        resample: Taps of the filter where it doubles (`up`) or halves (`down`); else 0.
        fused: Halves behind the convolution, as NCSN++'s residual encoder.
    """

    resample_filter: Tensor

    def __init__(
        self, n_in: int, n_out: int, kernel: int, up: bool = False, down: bool = False,
        resample: int = 2, fused: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel, self.up, self.down, self.fused = kernel, up, down, fused
        if kernel:
            self.weight = nn.Parameter(torch.empty(n_out, n_in, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(n_out))
        if up or down:
            self.register_buffer("resample_filter", torch.empty(1, 1, resample, resample))

    def forward(self, x: Tensor) -> Tensor:
        half = self.kernel // 2
        if self.fused:
            taps = (self.resample_filter.shape[-1] - 1) // 2
            x = F.conv2d(x, self.weight, padding=half + taps)
            return self._halved(x, padding=0) + self.bias.reshape(1, -1, 1, 1)
        if self.up:
            taps = (self.resample_filter.shape[-1] - 1) // 2
            doubled = (self.resample_filter * 4).expand(x.shape[1], -1, -1, -1)
            x = F.conv_transpose2d(x, doubled, groups=x.shape[1], stride=2, padding=taps)
        if self.down:
            x = self._halved(x, padding=(self.resample_filter.shape[-1] - 1) // 2)
        return F.conv2d(x, self.weight, self.bias, padding=half) if self.kernel else x

    def _halved(self, x: Tensor, padding: int) -> Tensor:
        taps = self.resample_filter.expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, taps, groups=x.shape[1], stride=2, padding=padding)


@dataclass(frozen=True)
class BlockKind:
    """What the blocks of one of the two networks have in common.

    Attributes:
        n_embedding: Channels of the embedding of noise and class.
        one_head: Attention has one head, or one for each 64 channels.
        scale: What sums of a block and its input are multiplied by.
        eps: Of group norms.
        resample: Taps of the filter that doubles and halves.
        projects: Whether a doubled or halved input is always convolved before it is added.
        scales_norm: Whether the embedding also scales, or only shifts.
    """

    n_embedding: int
    one_head: bool
    scale: float
    eps: float
    resample: int
    projects: bool
    scales_norm: bool


def norm(n_channels: int, eps: float) -> nn.GroupNorm:
    """EDM's: 32 groups, or fewer, of at least 4 channels."""
    return nn.GroupNorm(min(32, n_channels // 4), n_channels, eps)


class Block(nn.Module):
    """A residual block with attention or without."""

    def __init__(self, place: Place, kind: BlockKind, attends: bool) -> None:
        super().__init__()
        n_in, n, self.kind = place.n_in, place.n_out, kind
        up, down = place.what == "up", place.what == "down"
        self.norm0 = norm(n_in, kind.eps)
        self.conv0 = Conv(n_in, n, 3, up, down, kind.resample)
        self.affine = nn.Linear(kind.n_embedding, n * (2 if kind.scales_norm else 1))
        self.norm1 = norm(n, kind.eps)
        self.conv1 = Conv(n, n, 3)
        moves = up or down
        self.skip = None
        if n != n_in or moves:
            self.skip = Conv(
                n_in, n, 1 if kind.projects or n != n_in else 0, up, down, kind.resample
            )
        self.n_heads = (1 if kind.one_head else n // HEAD) if attends else 0
        if self.n_heads:
            self.norm2 = norm(n, kind.eps)
            self.qkv, self.proj = Conv(n, 3 * n, 1), Conv(n, n, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(F.silu(self.norm0(x)))
        told = self.affine(embedding)[:, :, None, None]
        if self.kind.scales_norm:
            scale, shift = told.chunk(2, dim=1)
            h = F.silu(torch.addcmul(shift, self.norm1(h), scale + 1))
        else:
            h = F.silu(self.norm1(h + told))
        x = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * self.kind.scale
        return (self.proj(self._attended(x)) + x) * self.kind.scale if self.n_heads else x

    def _attended(self, x: Tensor) -> Tensor:
        shape = (x.shape[0] * self.n_heads, x.shape[1] // self.n_heads)
        q, k, v = self.qkv(self.norm2(x)).reshape(*shape, 3, -1).unbind(2)
        weights = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(shape[1])).softmax(dim=2)
        return torch.einsum("nqk,nck->ncq", weights, v).reshape(x.shape)


class Sinusoids(nn.Module):
    """cos and sin of the noise label at n / 2 frequencies from 1 to (nearly) 1 / 10000."""

    def __init__(self, n: int, with_end: bool) -> None:
        super().__init__()
        self.n, self.with_end = n, with_end

    def forward(self, label: Tensor) -> Tensor:
        ramp = torch.arange(self.n // 2, dtype=label.dtype, device=label.device)
        frequencies = (1.0 / ENDS_AT) ** (ramp / (self.n // 2 - int(self.with_end)))
        angles = label[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)


class Fourier(nn.Module):
    """cos and sin of the noise label at random frequencies, which are stored."""

    freqs: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(n // 2))

    def forward(self, label: Tensor) -> Tensor:
        angles = label[:, None] * (2.0 * math.pi * self.freqs)
        return torch.cat([angles.cos(), angles.sin()], dim=1)
