"""What a network is shown in training, and what it shall answer: noise, v, or a flow's velocity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddim_core.networks.specs import Objective


@dataclass(frozen=True)
class Lesson:
    """A batch as the network sees it.

    Attributes:
        x_t: Noisy images [batch, channel, height, width].
        t: Their timesteps [batch]: int64, or floating of a flow.
        target: What the network shall answer, shaped like x_t.
    """

    x_t: Tensor
    t: Tensor
    target: Tensor


def lesson(objective: Objective, x_0: Tensor, alpha_bar: Tensor, stream: torch.Generator) -> Lesson:
    """Makes images noisy, each at a random level.

        x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps,    t uniform in 0..T-1
        epsilon: eps        v: sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0

        x_sigma = (1 - sigma) x_0 + sigma eps,    sigma uniform in [0, 1), t = sigma T
        flow: eps - x_0

    Source: Ho et al. 2020 (arXiv:2006.11239), eq. 14; Salimans and Ho 2022 (arXiv:2202.00512),
    appendix D; Liu et al. 2022 (arXiv:2209.03003), eq. 1, whose t is our 1 - sigma. Stable
    Diffusion 3 (arXiv:2403.03206) draws sigma logit-normally, which is denser in the middle. Here
    it is uniform: the few steps that solvers are compared at begin at sigma = 1 and end near 0,
    where a logit-normal draw hardly ever falls.

    Args:
        objective: What the network learns.
        x_0: Clean images, floating [batch, channel, height, width], in [-1, 1].
        alpha_bar: Float64 [T]; of a flow its length alone counts.
        stream: Drawn from: the timesteps, then the noise.
    """
    if objective == "flow":
        sigma = torch.rand(len(x_0), generator=stream)
        eps = torch.randn(x_0.shape, generator=stream)
        share = sigma[:, None, None, None]
        return Lesson((1.0 - share) * x_0 + share * eps, sigma * len(alpha_bar), eps - x_0)
    t = torch.randint(0, len(alpha_bar), (len(x_0),), generator=stream)
    eps = torch.randn(x_0.shape, generator=stream)
    signal = alpha_bar[t].sqrt().float()[:, None, None, None]
    noise = (1.0 - alpha_bar[t]).sqrt().float()[:, None, None, None]
    target = eps if objective == "epsilon" else signal * eps - noise * x_0
    return Lesson(signal * x_0 + noise * eps, t, target)
