"""The U-Net of lucidrains' denoising-diffusion-pytorch: RMS norms, linear and full attention.

Source: `Unet` of lucidrains/denoising-diffusion-pytorch (2.x), after Ho et al. 2020
(arXiv:2006.11239); linear attention is that of Shen et al. 2018 (arXiv:1812.01243), with learned
keys and values (`mem_kv`) beside those of the image. Names are the original's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddim_core.common.foreign import Config

CLASS_NAME = "DenoisingDiffusionUnet"


class RMSNorm(nn.Module):
    """g sqrt(d) x / |x|, over channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.g * self.g.shape[1] ** 0.5


class Times(nn.Module):
    """Features of the time: sin(t f_i), cos(t f_i) with f_i = 10000^(-i / (n/2 - 1)); or, with
    learned weights w, t itself and sin(2 pi t w_i), cos(2 pi t w_i)."""

    def __init__(self, dim: int, learned: int) -> None:
        super().__init__()
        self.n_half, self.n_features = dim // 2, learned + 1 if learned else dim
        self.weights = nn.Parameter(torch.zeros(learned // 2)) if learned else None

    def forward(self, t: Tensor) -> Tensor:
        if self.weights is not None:
            turns = t[:, None] * self.weights[None] * 2 * math.pi
            t = t[:, None]
            return torch.cat([t, turns.sin(), turns.cos()], dim=-1)
        step = -math.log(10000) / (self.n_half - 1)
        angles = t[:, None] * torch.exp(torch.arange(self.n_half, device=t.device) * step)[None]
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(nn.Module):
    """Convolution, norm, and a scale and shift by the time."""

    def __init__(self, dim: int, dim_out: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(dim, dim_out, 3, padding=1), RMSNorm(dim_out)

    def forward(self, x: Tensor, led: tuple[Tensor, ...] = ()) -> Tensor:
        x = self.norm(self.proj(x))
        return F.silu(x * (led[0] + 1) + led[1] if led else x)


class ResnetBlock(nn.Module):
    def __init__(self, dim: int, dim_out: int, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time_dim, dim_out * 2))
        self.block1, self.block2 = Block(dim, dim_out), Block(dim_out, dim_out)
        self.res_conv = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h = self.block2(self.block1(x, self.mlp(t)[:, :, None, None].chunk(2, dim=1)))
        return h + self.res_conv(x)  # type: ignore[no-any-return]


class LinearAttention(nn.Module):
    """softmax(q) over features times (softmax(k) over places) v, with learned places besides."""

    def __init__(self, dim: int, heads: int, dim_head: int, n_memory: int) -> None:
        super().__init__()
        self.norm, inner = RMSNorm(dim), heads * dim_head
        self.mem_kv = nn.Parameter(torch.zeros(2, heads, dim_head, n_memory))
        self.to_qkv = nn.Conv2d(dim, inner * 3, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(inner, dim, 1), RMSNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        _, heads, dim_head, _ = self.mem_kv.shape
        parts = self.to_qkv(self.norm(x)).reshape(n, 3, heads, dim_head, height * width)
        q, k, v = parts.unbind(1)
        k = torch.cat([self.mem_kv[0].expand(n, -1, -1, -1), k], dim=-1)
        v = torch.cat([self.mem_kv[1].expand(n, -1, -1, -1), v], dim=-1)
        q = q.softmax(dim=-2) * dim_head**-0.5
        context = k.softmax(dim=-1) @ v.transpose(-1, -2)
        out = context.transpose(-1, -2) @ q
        return self.to_out(out.reshape(n, -1, height, width))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Softmax attention over places, with learned places besides."""

    def __init__(self, dim: int, heads: int, dim_head: int, n_memory: int) -> None:
        super().__init__()
        self.norm, inner = RMSNorm(dim), heads * dim_head
        self.mem_kv = nn.Parameter(torch.zeros(2, heads, n_memory, dim_head))
        self.to_qkv = nn.Conv2d(dim, inner * 3, 1, bias=False)
        self.to_out = nn.Conv2d(inner, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        _, heads, _, dim_head = self.mem_kv.shape
        parts = self.to_qkv(self.norm(x)).reshape(n, 3, heads, dim_head, height * width)
        q, k, v = parts.transpose(-1, -2).unbind(1)
        k = torch.cat([self.mem_kv[0].expand(n, -1, -1, -1), k], dim=-2)
        v = torch.cat([self.mem_kv[1].expand(n, -1, -1, -1), v], dim=-2)
        out = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2)
        return self.to_out(out.reshape(n, -1, height, width))  # type: ignore[no-any-return]


class DenoisingDiffusionUnet(nn.Module):
    """The network; `lucidrains_unet` lays it out.

    Args:
        config: `sample_size`, `in_channels`, `out_channels`; `dim`, from which the time has its
            width; `dims`, the first convolution's channels and those after each level; `full_attn`,
            `attn_heads`, `attn_dim_head`, one a level; `num_mem_kv`; `self_condition`;
            `learned_sinusoidal_dim`, 0 for fixed sinusoids.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        dims: Sequence[int] = config["dims"]
        time_dim, pairs = config["dim"] * 4, list(pairwise(dims))
        self.self_condition = bool(config["self_condition"])
        n_in = config["in_channels"] * (1 + self.self_condition)
        self.init_conv = nn.Conv2d(n_in, dims[0], 7, padding=3)
        times = Times(config["dim"], config["learned_sinusoidal_dim"])
        self.time_mlp = nn.Sequential(
            times, nn.Linear(times.n_features, time_dim), nn.GELU(), nn.Linear(time_dim, time_dim)
        )

        def attention(level: int, dim: int, full: bool) -> nn.Module:
            kind = Attention if full else LinearAttention
            heads, dim_head = config["attn_heads"][level], config["attn_dim_head"][level]
            return kind(dim, heads, dim_head, config["num_mem_kv"])

        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        last = len(pairs) - 1
        for level, (dim_in, dim_out) in enumerate(pairs):
            full = config["full_attn"][level]
            resampling: nn.Module = nn.Conv2d(dim_in, dim_out, 3, padding=1)
            if level < last:
                resampling = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(dim_in * 4, dim_out, 1))
            blocks = [ResnetBlock(dim_in, dim_in, time_dim) for _ in range(2)]
            self.downs.append(nn.ModuleList([*blocks, attention(level, dim_in, full), resampling]))
        self.mid_block1 = ResnetBlock(dims[-1], dims[-1], time_dim)
        self.mid_attn = attention(last, dims[-1], True)
        self.mid_block2 = ResnetBlock(dims[-1], dims[-1], time_dim)
        for level, (dim_in, dim_out) in reversed(list(enumerate(pairs))):
            full = config["full_attn"][level]
            resampling = nn.Conv2d(dim_out, dim_in, 3, padding=1)
            if level > 0:
                resampling = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), resampling)
            blocks = [ResnetBlock(dim_out + dim_in, dim_out, time_dim) for _ in range(2)]
            self.ups.append(nn.ModuleList([*blocks, attention(level, dim_out, full), resampling]))
        self.final_res_block = ResnetBlock(dims[0] * 2, dims[0], time_dim)
        self.final_conv = nn.Conv2d(dims[0], config["out_channels"], 1)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: None = None, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Predicts for images [n, c, h, w] at timesteps [n]. A network that is conditioned on its
        own last guess takes [n, 2 c, h, w], that before the noisy image; or, as in half of its
        training, the noisy image alone."""
        del class_labels, return_dict
        alone = self.self_condition and sample.shape[1] == self.config["in_channels"]
        x = torch.cat([torch.zeros_like(sample), sample], 1) if alone else sample
        x = first = self.init_conv(x)
        times, *mlp = self.time_mlp
        t = times(timestep.to(torch.float32)).to(x.dtype)
        for layer in mlp:
            t = layer(t)
        kept: list[Tensor] = []
        layers: Any
        for layers in self.downs:
            block1, block2, attn, resampling = layers
            x = block1(x, t)
            kept.append(x)
            x = block2(x, t)
            x = attn(x) + x
            kept.append(x)
            x = resampling(x)
        x = self.mid_block1(x, t)
        x = self.mid_block2(self.mid_attn(x) + x, t)
        for layers in self.ups:
            block1, block2, attn, resampling = layers
            x = block1(torch.cat([x, kept.pop()], 1), t)
            x = block2(torch.cat([x, kept.pop()], 1), t)
            x = resampling(attn(x) + x)
        x = self.final_res_block(torch.cat([x, first], 1), t)
        return (self.final_conv(x),)
