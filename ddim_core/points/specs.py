"""Frozen records that say what is asked for of points in the plane; as specs.py for images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddim_core.common.checks import (
    LEAST_SEED_TOO_LARGE,
    MOST_STEPS,
    require_at_least,
    require_at_most,
    require_choice,
    settle_types,
)
from ddim_core.diffusion.specs import NoiseSpec

PointSet = Literal["swiss-roll", "moons", "circles", "s-curve", "checkerboard", "gaussians"]


@dataclass(frozen=True)
class PointModelSpec:
    """A small network that predicts the noise of points in the plane.

    Attributes:
        width: Units of every hidden layer.
        depth: Hidden layers.
        point_waves: Fixed random waves over the plane that the network sees of a point.
        point_frequency: Standard deviation of their angular frequencies; the noisy points have
            variance 1 there.
        time_waves: Sine and cosine pairs that the network sees of the noise level.
    """

    width: int = 128
    depth: int = 4
    point_waves: int = 32
    point_frequency: float = 2.0
    time_waves: int = 8

    def __post_init__(self) -> None:
        settle_types(self)
        for name in ("width", "depth", "point_waves", "time_waves"):
            require_at_least(name, getattr(self, name), 1)
        if self.point_frequency <= 0.0:
            raise ValueError(f"point_frequency is {self.point_frequency}; it must be positive")


@dataclass(frozen=True)
class PointTrainSpec:
    """How a noise model of points is trained; it decides the weights.

    Attributes:
        dataset: Which points; every step draws new ones.
        model: The network.
        noise: The schedule it learns to invert.
        steps: Optimiser steps in all; the learning rate decays to 0 over them.
        batch_size: Points per step.
        learning_rate: Peak of the schedule.
        warmup_steps: Steps over which the learning rate rises linearly to its peak.
        ema_decay: Largest decay of the moving average of the weights, in [0, 1).
        seed: Keys the initial weights, the points, the timesteps and the noise.
    """

    dataset: PointSet = "swiss-roll"
    model: PointModelSpec = PointModelSpec()
    noise: NoiseSpec = NoiseSpec()  # noqa: RUF009 (frozen)
    steps: int = 5000
    batch_size: int = 1024
    learning_rate: float = 6e-3
    warmup_steps: int = 100
    ema_decay: float = 0.998
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        require_choice("dataset", self.dataset, get_args(PointSet))
        require_at_least("steps", self.steps, 1)
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("warmup_steps", self.warmup_steps, 0)
        require_at_most("steps", self.steps, MOST_STEPS)
        require_at_least("seed", self.seed, 0)
        require_at_most("seed", self.seed, LEAST_SEED_TOO_LARGE - 1)
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if self.learning_rate <= 0.0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")
