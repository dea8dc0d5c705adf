"""The networks of score_sde: DDPM, DDPM++ and NCSN++.

Source: Song et al. 2021 (arXiv:2011.13456), `models/ddpm.py` and `models/ncsnpp.py` of
yang-song/score_sde_pytorch; names are the original's. Of NCSN++ it is what its VP models use,
sinusoids of the time and no output pyramid; and its VE models without one, which are made EDMs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddim_core.common.foreign import Config

CLASS_NAME = "NCSNpp"
FIR_KERNEL = (1.0, 3.0, 3.0, 1.0)


def _kernel(x: Tensor) -> Tensor:
    """The low-pass filter of StyleGAN2 for each channel of x, of sum 1."""
    i = torch.arange(4, dtype=x.dtype, device=x.device)
    line = 1 + i * (3 - i)  # FIR_KERNEL, made where x lies, as a graph of a card needs it
    plane = torch.outer(line, line)
    return (plane / plane.sum()).expand(x.shape[1], 1, -1, -1)


def doubled(x: Tensor, fir: bool) -> Tensor:
    """x with twice its height and width."""
    if fir:
        return F.conv_transpose2d(x, 4 * _kernel(x), stride=2, padding=1, groups=x.shape[1])
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def halved(x: Tensor, fir: bool) -> Tensor:
    """x with half its height and width."""
    if fir:
        return F.conv2d(x, _kernel(x), stride=2, padding=1, groups=x.shape[1])
    return F.avg_pool2d(x, 2)


class NIN(nn.Module):
    """A linear layer over channels."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.zeros(n_in, n_out)), nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.W.t()[:, :, None, None], self.b)


class Layers:
    """Makes a network's layers as its config says.

    Args:
        config: Of `NCSNpp`.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.temb_dim = config, 4 * int(config["nf"])
        self.fir, self.biggan = bool(config["fir"]), config["resblock_type"] == "biggan"
        self.norm_groups = 32 if config["name"] == "ddpm" else None

    def norm(self, n: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.norm_groups or min(n // 4, 32), n, eps=1e-6)


class Resnet(nn.Module):
    """A residual block; BigGAN's (`biggan`) may halve or double its picture."""

    def __init__(self, made: Layers, n_in: int, n_out: int, resample: Any = None) -> None:
        super().__init__()
        self.GroupNorm_0, self.GroupNorm_1 = made.norm(n_in), made.norm(n_out)
        self.Conv_0 = nn.Conv2d(n_in, n_out, 3, padding=1)
        self.Conv_1 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.Dense_0 = nn.Linear(made.temb_dim, n_out)
        self.shortcut = ""
        if made.biggan and (resample or n_in != n_out):
            self.shortcut, self.Conv_2 = "Conv_2", nn.Conv2d(n_in, n_out, 1)
        elif n_in != n_out:
            self.shortcut, self.NIN_0 = "NIN_0", NIN(n_in, n_out)
        self.resample, self.fir = resample, made.fir
        self.scale = 0.5**0.5 if made.config["skip_rescale"] else 1.0

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = F.silu(self.GroupNorm_0(x))
        if self.resample:
            h, x = self.resample(h, self.fir), self.resample(x, self.fir)
        h = self.Conv_0(h) + self.Dense_0(F.silu(temb))[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        x = getattr(self, self.shortcut)(x) if self.shortcut else x
        return (x + h) * self.scale


class Attention(nn.Module):
    """Self-attention over places, with one head."""

    def __init__(self, made: Layers, n: int) -> None:
        super().__init__()
        self.GroupNorm_0 = made.norm(n)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (NIN(n, n) for _ in range(4))
        self.scale = 0.5**0.5 if made.config["skip_rescale"] else 1.0

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.NIN_0, self.NIN_1, self.NIN_2))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return (x + self.NIN_3(h)) * self.scale


class Resample(nn.Module):
    """Halves a picture by a convolution with stride 2, or doubles it before one."""

    def __init__(self, n: int, up: bool) -> None:
        super().__init__()
        self.up = up
        self.Conv_0 = nn.Conv2d(n, n, 3, padding=1) if up else nn.Conv2d(n, n, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = doubled(x, fir=False) if self.up else F.pad(x, (0, 1, 0, 1))
        return self.Conv_0(x)  # type: ignore[no-any-return]


class Pyramid(nn.Module):
    """Filters the noisy image and halves it by a convolution."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.Conv2d_0 = nn.Conv2d(n_in, n_out, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv2d_0(F.conv2d(x, _kernel(x), padding=3 - 1, groups=x.shape[1]))  # type: ignore[no-any-return]


class NCSNpp(nn.Module):
    """The network of a config.

    Args:
        config: `sample_size`, `in_channels` (as many come out); the original's `name`, `nf`,
            `ch_mult`, `num_res_blocks`, `resblock_type` (ddpm, biggan), `fir`, `skip_rescale`,
            `progressive_input` (none, residual); `attn_levels`; and `time_scale`, `time_shift`, by
            which it is told (t + shift) scale. Or, of a VE model, `frequencies` of its Fourier
            features, and `sigma_data`: it is called, and answers, as an EDM with that.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        made, nf = Layers(config), int(config["nf"])
        widths = [nf * int(m) for m in config["ch_mult"]]
        attends, n_blocks = config["attn_levels"], int(config["num_res_blocks"])
        n_image, last = int(config["in_channels"]), len(widths) - 1
        self.residual = config["progressive_input"] == "residual"
        self.frequencies = config.get("frequencies")
        self._w: Tensor | None = None
        n_features = 2 * nf if self.frequencies else nf
        modules: list[nn.Module] = [nn.Linear(n_features, 4 * nf), nn.Linear(4 * nf, 4 * nf)]
        modules.append(nn.Conv2d(n_image, nf, 3, padding=1))
        kept, n, n_pyramid = [nf], nf, n_image
        for level, width in enumerate(widths):
            for _ in range(n_blocks):
                modules.append(Resnet(made, n, width))
                n = width
                modules += [Attention(made, n)] if level in attends else []
                kept.append(n)
            if level < last:
                modules.append(Resnet(made, n, n, halved) if made.biggan else Resample(n, up=False))
                if self.residual:
                    modules.append(Pyramid(n_pyramid, n))
                    n_pyramid = n
                kept.append(n)
        modules += [Resnet(made, n, n), Attention(made, n), Resnet(made, n, n)]
        for level in reversed(range(len(widths))):
            for _ in range(n_blocks + 1):
                modules.append(Resnet(made, n + kept.pop(), widths[level]))
                n = widths[level]
            modules += [Attention(made, n)] if level in attends else []
            if level > 0:
                modules.append(Resnet(made, n, n, doubled) if made.biggan else Resample(n, up=True))
        modules += [made.norm(n), nn.Conv2d(n, n_image, 3, padding=1)]
        self.all_modules = nn.ModuleList(modules)

    def forward(
        self, sample: Tensor, timestep: Tensor, class_labels: None = None, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Predicts the noise in images [n, c, h, w] at timesteps [n]; of a VE model F for c_in x at
        log(sigma) / 4, as an EDM."""
        del class_labels, return_dict
        told = timestep.to(torch.float32)
        if self.frequencies is None:
            return (self._said(sample, self._sinusoids(told)),)
        # In pixels of [0, 1] it knows half the noise, and answers h: D = x + sigma h. Solved for F.
        data, sigma = self.config["sigma_data"], (4.0 * told).exp()
        level = sigma[:, None, None, None]
        scale = (level**2 + data**2).sqrt()
        said = self._said((scale * sample).to(sample.dtype), self._fourier((0.5 * sigma).log()))
        return ((level * sample + scale * said) / data,)

    def _sinusoids(self, told: Tensor) -> Tensor:
        half = int(self.config["nf"]) // 2
        step = -math.log(10000) / (half - 1)
        t = (told + self.config["time_shift"]) * self.config["time_scale"]
        return t[:, None] * torch.exp(torch.arange(half, device=t.device) * step)[None]

    def _fourier(self, told: Tensor) -> Tensor:
        """2 pi w t; w stands in the config, so that no number format of the weights rounds it, and
        is brought to a device once: a graph of a card copies nothing."""
        if self._w is None or self._w.device != told.device:
            self._w = torch.tensor(self.frequencies, dtype=torch.float32, device=told.device)
        return told[:, None] * self._w[None] * 2 * math.pi

    def _said(self, sample: Tensor, angles: Tensor) -> Tensor:
        config, modules = self.config, iter(self.all_modules)
        temb = next(modules)(torch.cat([angles.sin(), angles.cos()], dim=1).to(sample.dtype))
        temb = next(modules)(F.silu(temb))
        h, kept = self._down(sample, temb, modules)
        h = next(modules)(h, temb)
        h = next(modules)(h)
        h = next(modules)(h, temb)
        n_blocks, n_levels = int(config["num_res_blocks"]), len(config["ch_mult"])
        for level in reversed(range(n_levels)):
            for _ in range(n_blocks + 1):
                h = next(modules)(torch.cat([h, kept.pop()], 1), temb)
            h = next(modules)(h) if level in config["attn_levels"] else h
            h = self._resampled(next(modules), h, temb) if level > 0 else h
        h = F.silu(next(modules)(h))
        return next(modules)(h)  # type: ignore[no-any-return]

    def _down(self, x: Tensor, temb: Tensor, modules: Iterator[Any]) -> tuple[Tensor, list[Tensor]]:
        config, pyramid = self.config, x
        h = next(modules)(x)
        kept = [h]
        for level in range(len(config["ch_mult"])):
            for _ in range(int(config["num_res_blocks"])):
                h = next(modules)(h, temb)
                h = next(modules)(h) if level in config["attn_levels"] else h
                kept.append(h)
            if level < len(config["ch_mult"]) - 1:
                h = self._resampled(next(modules), h, temb)
                if self.residual:
                    pyramid = next(modules)(pyramid) + h
                    h = pyramid = pyramid * (0.5**0.5 if config["skip_rescale"] else 1.0)
                kept.append(h)
        return h, kept

    def _resampled(self, module: Any, h: Tensor, temb: Tensor) -> Tensor:
        return module(h, temb) if isinstance(module, Resnet) else module(h)  # type: ignore[no-any-return]
