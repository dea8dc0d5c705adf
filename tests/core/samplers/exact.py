"""Networks that are exact: a mixture of Gaussians under diffusion, EDM and flow matching, and the
solution of its ODE."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from tests.core.analytic import Mixture

World = Literal["vp", "edm", "flow", "v"]
MIXTURE = Mixture.of(
    [[-0.7, 0.4], [0.5, 0.6], [0.3, -0.8]], [0.35, 0.3, 0.4], weights=[0.3, 0.3, 0.4]
)
POINTS = 64
FINE = 300  # Runge-Kutta steps of fourth order for the ODE's solution: its error is below 1e-6


def linear(n_train: int = 1000, **more: Any) -> dict[str, Any]:
    """A checkpoint's scheduler with the usual linear betas."""
    return {
        "_class_name": "DDPMScheduler", "num_train_timesteps": n_train, "beta_start": 0.1 / n_train,
        "beta_end": 20.0 / n_train, "clip_sample": False, "timestep_spacing": "linspace", **more,
    }  # fmt: skip


def smooth(n_train: int = 1000, **more: Any) -> dict[str, Any]:
    """The same, but the first beta is 0.05, where the samplers end or are compared.

    With betas that start at 0.1 / T the last steps, evenly spaced in t, never become small in
    log(sigma), however many there are, and a solver's order does not show.
    """
    betas = np.linspace(0.1, 20.0, n_train) / n_train
    betas[0] = 0.05
    return {
        **linear(n_train),
        "trained_betas": betas.tolist(),
        "final_sigmas_type": "sigma_min",
        "set_alpha_to_one": False,
        **more,
    }


def x0_and_eps(x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """What is expected of x = x0 + sigma eps."""
    alpha_bar = 1.0 / (1.0 + sigma**2)
    return MIXTURE.x0_and_eps(x * alpha_bar**0.5, alpha_bar)


def velocity(x: Tensor, sigma: float) -> Tensor:
    """What is expected of eps - x0 for x = (1 - sigma) x0 + sigma eps."""
    length = math.hypot(sigma, 1.0 - sigma)
    x0, eps = MIXTURE.x0_and_eps(x / length, ((1.0 - sigma) / length) ** 2)
    return eps - x0


def runge_kutta(slope: Callable[[Tensor, float], Tensor], x: Tensor, at: list[float]) -> Tensor:
    for a, b in pairwise(at):
        h, middle = b - a, (a + b) / 2.0
        k1 = slope(x, a)
        k2 = slope(x + h / 2.0 * k1, middle)
        k3 = slope(x + h / 2.0 * k2, middle)
        x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + slope(x + h * k3, b))
    return x


def solution(x: Tensor, start: float, end: float, n: int = FINE) -> Tensor:
    """Follows dx / dsigma = eps from noise level start down to end, above 0, float64."""

    def slope(x: Tensor, u: float) -> Tensor:
        return math.exp(u) * x0_and_eps(x, math.exp(u))[1]

    return runge_kutta(
        slope, x.double(), np.linspace(math.log(start), math.log(end), n + 1).tolist()
    )


def network(world: World, scheduler: Any, shape: tuple[int, ...] = (-1, 2)) -> Any:
    """The exact network of a scheduler's checkpoint, called as model(x, t) at real t."""
    config = scheduler.config
    if world == "flow":
        return lambda x, t: velocity(x.double(), float(t[0]) / config.num_train_timesteps).float()
    if world == "edm":
        return lambda x, t: _edm(x.double(), math.exp(4.0 * float(t[0])), config.sigma_data).float()
    if world == "v":  # of v-diffusion, t in [0, 1]

        def v(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = math.cos(float(t[0]) * math.pi / 2), math.sin(float(t[0]) * math.pi / 2)
            x0, eps = MIXTURE.x0_and_eps(x, max(alpha, 1e-6) ** 2)
            return (alpha * eps - sigma * x0).float()

        return v
    alpha_bar = scheduler.alphas_cumprod.double().numpy()
    table = np.sqrt((1.0 - alpha_bar) / alpha_bar)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        sigma = float(np.interp(float(t[0]), np.arange(len(table)), table))
        flat = x.reshape(shape)
        return MIXTURE.x0_and_eps(flat, 1.0 / (1.0 + sigma**2))[1].reshape(x.shape).float()

    return eps


def _edm(scaled: Tensor, sigma: float, sd: float) -> Tensor:
    """Karras et al. 2022 (arXiv:2206.00364), table 1: what stands behind D = c_skip x + c_out F."""
    total = sigma**2 + sd**2
    x = scaled * total**0.5
    return (x0_and_eps(x, sigma)[0] - x * sd**2 / total) * total**0.5 / (sigma * sd)


def noise() -> Tensor:
    return torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(1))


@cache
def _expected(world: World, scale: float, start: float, end: float) -> Tensor:
    """Where the ODE leads from the scheduler's own start. In the last step to sigma = 0 all solvers
    take the predicted x0; where that step does not shrink with S it is taken here as well."""
    x = noise().double() * scale
    if world == "flow":
        return runge_kutta(velocity, x, np.linspace(start, 0.0, FINE + 1).tolist())
    return solution(x, start, end)


def error(
    sampler: str,
    own: Mapping[str, Any],
    steps: int,
    world: World = "vp",
    fault: Callable[[Any], None] = lambda scheduler: None,
) -> float:
    """Root mean square distance of what a sampler draws from the ODE's solution.

    Args:
        sampler, own, steps: The setting.
        world: Whose exact network is asked.
        fault: What is done to the scheduler before it draws.
    """
    name = parse_sampler(sampler)
    scheduler = scheduler_for(name, own)
    done = set_steps(scheduler, name, steps)
    ask = network(world, scheduler)
    fault(scheduler)
    with torch.inference_mode():
        x = draw(ask, scheduler, noise()).x.double()
    return float((x - _truth(world, scheduler, done.sigmas)).square().mean().sqrt())


def _truth(world: World, scheduler: Any, sigmas: tuple[float, ...]) -> Tensor:
    if world == "flow":
        return _expected(world, 1.0, 1.0, 0.0)
    if world == "v":
        return x0_and_eps(_expected(world, math.hypot(1.0, 1e4), 1e4, 1e-4), 1e-4)[0]
    start, end = sigmas[0], sigmas[-1]
    grown = float(scheduler.init_noise_sigma)
    exploding = abs(grown - 1.0) > 1e-6  # it steps in x0 + sigma eps, whose variance grows
    scale = grown if exploding else math.hypot(1.0, start)
    last = end if end > 0.0 else FIXED_END.get(type(scheduler).__name__, lambda: sigmas[-2])()
    x = _expected(world, scale, start, last)
    if end == 0.0:
        return x0_and_eps(x, last)[0]
    return x if exploding else x / math.hypot(1.0, end)


FIXED_END = {"LMSDiscreteScheduler": lambda: 1e-4}
"""LMS takes its last step to 0 in its own order: compared with the solution at 0 itself."""


def fitted_order(errors: Mapping[int, float]) -> float:
    """How fast the error falls with S: minus the slope of its logarithm over log S."""
    return -float(np.polyfit(np.log(list(errors)), np.log(list(errors.values())), 1)[0])
