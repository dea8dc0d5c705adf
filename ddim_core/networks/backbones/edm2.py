"""EDM2's magnitude-preserving U-Net, by the names of NVlabs/edm2.

Source: Karras et al. 2024 (arXiv:2312.02696), configuration G, figure 21; equations by their
numbers there. Weights are stored as they were trained and normalised when they are used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddim_core.networks.backbones.edm_layers import (
    Place,
    attends_at,
    decoder_places,
    encoder_places,
)

SILU = 0.596  # root mean square of silu(x) for x ~ N(0, 1), equation 81
EPS = 1e-4


def normalize(x: Tensor, dims: Sequence[int]) -> Tensor:
    """Divides by the root mean square over some dimensions, and 1e-4 (equation 66)."""
    length = torch.linalg.vector_norm(x, dim=list(dims), keepdim=True)
    return x / (EPS + length * math.sqrt(length.numel() / x.numel()))


def mp_silu(x: Tensor) -> Tensor:
    """silu of unit magnitude (equation 81)."""
    return F.silu(x) / SILU


def mp_sum(a: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 - t) a + t b, of unit magnitude (equation 88)."""
    return a.lerp(b, t) / math.hypot(1.0 - t, t)


def mp_cat(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Both side by side, each with its share of the magnitude (equation 103)."""
    n_a, n_b = a.shape[1], b.shape[1]
    scale = math.sqrt((n_a + n_b) / ((1.0 - t) ** 2 + t**2))
    shares = (scale / math.sqrt(n_a) * (1.0 - t), scale / math.sqrt(n_b) * t)
    return torch.cat([shares[0] * a, shares[1] * b], dim=1)


class MPFourier(nn.Module):
    """Features sqrt(2) cos(f x + p) of random frequencies and phases (equation 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(n))
        self.register_buffer("phases", torch.empty(n))

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, None] * self.freqs + self.phases).cos() * math.sqrt(2.0)


class MPConv(nn.Module):
    """A convolution, or of no kernel a matrix, with rows of unit length (equation 47)."""

    def __init__(self, n_in: int, n_out: int, *kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, *kernel))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        w = normalize(self.weight, range(1, self.weight.ndim))
        w = w * (gain / math.sqrt(self.weight[0].numel()))
        return F.linear(x, w) if w.ndim == 2 else F.conv2d(x, w, padding=w.shape[-1] // 2)


def resampled(x: Tensor, taps: Tensor, what: str) -> Tensor:
    """Doubles (`up`) or halves (`down`) images by a filter [1, 1, k, k] of an even k."""
    if what not in ("up", "down"):
        return x
    n, pad = x.shape[1], (taps.shape[-1] - 1) // 2
    if what == "down":
        return F.conv2d(x, taps.expand(n, -1, -1, -1), groups=n, stride=2, padding=pad)
    return F.conv_transpose2d(x, (taps * 4).expand(n, -1, -1, -1), groups=n, stride=2, padding=pad)


class Block(nn.Module):
    """Of the encoder or decoder (figure 21)."""

    def __init__(
        self, place: Place, n_embedding: int, is_encoder: bool, attends: bool,
        channels_per_head: int, res_balance: float, attn_balance: float, clip_act: float | None,
    ) -> None:  # fmt: skip
        super().__init__()
        n_in, n = place.n_in, place.n_out
        self.what, self.is_encoder = place.what, is_encoder
        self.res_balance, self.attn_balance, self.clip = res_balance, attn_balance, clip_act
        self.emb_gain = nn.Parameter(torch.empty([]))
        self.conv_res0 = MPConv(n if is_encoder else n_in, n, 3, 3)
        self.emb_linear = MPConv(n_embedding, n)
        self.conv_res1 = MPConv(n, n, 3, 3)
        self.conv_skip = MPConv(n_in, n, 1, 1) if n_in != n else None
        self.n_heads = n // channels_per_head if attends else 0
        if self.n_heads:
            self.attn_qkv, self.attn_proj = MPConv(n, 3 * n, 1, 1), MPConv(n, n, 1, 1)

    def forward(self, x: Tensor, embedding: Tensor, taps: Tensor) -> Tensor:
        x = resampled(x, taps, self.what)
        if self.is_encoder:
            x = normalize(x if self.conv_skip is None else self.conv_skip(x), [1])
        told = self.emb_linear(embedding, gain=self.emb_gain) + 1
        y = mp_silu(self.conv_res0(mp_silu(x)) * told[:, :, None, None])
        y = self.conv_res1(y)
        if not self.is_encoder and self.conv_skip is not None:
            x = self.conv_skip(x)
        x = mp_sum(x, y, self.res_balance)
        if self.n_heads:
            x = mp_sum(x, self.attn_proj(self._attended(x)), self.attn_balance)
        return x if self.clip is None else x.clip(-self.clip, self.clip)

    def _attended(self, x: Tensor) -> Tensor:
        y = self.attn_qkv(x).reshape(x.shape[0], self.n_heads, -1, 3, x.shape[2] * x.shape[3])
        q, k, v = normalize(y, [2]).unbind(3)
        weights = torch.einsum("nhcq,nhck->nhqk", q, k / math.sqrt(q.shape[2])).softmax(dim=3)
        return torch.einsum("nhqk,nhck->nhcq", weights, v).reshape(x.shape)


class EDM2UNet(nn.Module):
    """Arguments as of `SongUNet`; `label_balance`, `concat_balance`, `res_balance` and
    `attn_balance` are the shares of the second of two that are summed or joined, and `clip_act`
    bounds activations. The filter that doubles and halves is among the weights."""

    resample_filter: Tensor

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0,
        model_channels: int = 192, channel_mult: Sequence[int] = (1, 2, 3, 4),
        channel_mult_noise: int | None = None, channel_mult_emb: int | None = None,
        num_blocks: int = 3, attn_resolutions: Sequence[int] = (16, 8),
        label_balance: float = 0.5, concat_balance: float = 0.5,
        resample_filter: Sequence[int] = (1, 1), channels_per_head: int = 64,
        res_balance: float = 0.3, attn_balance: float = 0.3, clip_act: float | None = 256,
    ) -> None:  # fmt: skip
        super().__init__()
        widths = [model_channels * mult for mult in channel_mult]
        n_noise = model_channels * channel_mult_noise if channel_mult_noise else widths[0]
        n_emb = model_channels * channel_mult_emb if channel_mult_emb else max(widths)
        self.label_dim = label_dim
        self.label_balance, self.concat_balance = label_balance, concat_balance
        n_taps = len(resample_filter)
        self.register_buffer("resample_filter", torch.empty(1, 1, n_taps, n_taps))
        self.out_gain = nn.Parameter(torch.empty([]))
        self.emb_fourier, self.emb_noise = MPFourier(n_noise), MPConv(n_noise, n_emb)
        if label_dim:
            self.emb_label = MPConv(label_dim, n_emb)
        self._enc = list(
            encoder_places(img_resolution, in_channels + 1, widths[0], widths, num_blocks)
        )
        skips = [place.n_out for place in self._enc]
        self._dec = list(decoder_places(img_resolution, skips, widths, num_blocks))

        def layer(place: Place, is_encoder: bool) -> nn.Module:
            if place.what == "conv":
                return MPConv(place.n_in, place.n_out, 3, 3)
            return Block(
                place, n_emb, is_encoder, attends_at(place, attn_resolutions), channels_per_head,
                res_balance, attn_balance, clip_act,
            )  # fmt: skip

        self.enc = nn.ModuleDict({place.name: layer(place, True) for place in self._enc})
        self.dec = nn.ModuleDict({place.name: layer(place, False) for place in self._dec})
        self.out_conv = MPConv(widths[0], out_channels, 3, 3)

    def forward(self, x: Tensor, noise_label: Tensor, classes: Tensor) -> Tensor:
        """As of `SongUNet`."""
        embedding = self.emb_noise(self.emb_fourier(noise_label).to(x.dtype))
        if self.label_dim:
            label = self.emb_label(classes * math.sqrt(self.label_dim))
            embedding = mp_sum(embedding, label, self.label_balance)
        embedding, skips = mp_silu(embedding), []
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        for place in self._enc:
            layer = self.enc[place.name]
            x = layer(x) if place.what == "conv" else layer(x, embedding, self.resample_filter)
            skips.append(x)
        for place in self._dec:
            x = mp_cat(x, skips.pop(), self.concat_balance) if place.is_block else x
            x = self.dec[place.name](x, embedding, self.resample_filter)
        said: Tensor = self.out_conv(x, gain=self.out_gain)
        return said
