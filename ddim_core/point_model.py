"""A noise model of points in the plane, and its training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ddim_core.points import STANDARD_DEVIATION, TRAINING, stream, true_points
from ddim_core.schedule import NoiseSchedule
from ddim_core.specs import NoiseSpec, PointModelSpec, PointTrainSpec


class PointModel(nn.Module):
    """Predicts the noise in points: float32 [n, 2] and timesteps int64 [n] to float32 [n, 2].

        eps = c_skip x + c_out F(features of x / sqrt(v) and of t)
        v = 4 alpha_bar + 1 - alpha_bar,  c_skip = sqrt(1 - alpha_bar) / v,
        c_out = sqrt(4 alpha_bar / v)

    v is the variance of x, c_skip x the best linear prediction of eps, and c_out the standard
    deviation of what is left, so that the network F sees and predicts numbers of variance 1 at
    every noise level (Karras et al. 2022, arXiv:2206.00364, appendix B.6, for this schedule and
    for eps). Without sharp features of the points it would blur the space between the roll's
    arms: F sees sines and cosines of them along fixed random directions (Tancik et al. 2020,
    arXiv:2006.10739), and those of the log signal-to-noise ratio.
    """

    def __init__(self, spec: PointModelSpec, noise: NoiseSpec) -> None:
        super().__init__()
        alpha_bar = torch.tensor(NoiseSchedule.from_spec(noise).alpha_bar)
        variance = STANDARD_DEVIATION**2 * alpha_bar + 1.0 - alpha_bar
        scales = [
            variance.rsqrt(),
            (1.0 - alpha_bar).sqrt() / variance,
            STANDARD_DEVIATION * (alpha_bar / variance).sqrt(),
        ]
        log_snr = 0.5 * (alpha_bar.log() - (1.0 - alpha_bar).log())
        harmonics = torch.arange(1, spec.time_waves + 1) * (math.pi / float(np.ptp(log_snr)))
        phases = (log_snr - log_snr.min())[:, None] * harmonics
        self.register_buffer("scales", torch.stack(scales, dim=1).float())
        self.register_buffer("levels", torch.cat([phases.sin(), phases.cos()], dim=1).float())
        self.register_buffer("waves", spec.point_frequency * torch.randn(2, spec.point_waves))
        sizes = [2 + 2 * spec.point_waves] + [spec.width] * spec.depth
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))
        self.time = nn.Linear(2 * spec.time_waves, spec.width * spec.depth)
        self.last = nn.Linear(spec.width, 2)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        c_in, c_skip, c_out = self.scales[t].split(1, dim=1)
        point = c_in * x
        phases = point @ self.waves
        h = torch.cat([point, phases.sin(), phases.cos()], dim=1)
        shifts = self.time(self.levels)[t].chunk(len(self.layers), dim=1)
        for layer, shift in zip(self.layers, shifts, strict=True):
            h = nn.functional.silu(layer(h) + shift)
        return c_skip * x + c_out * self.last(h)
