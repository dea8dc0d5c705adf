"""Frozen records that say how the small networks of this project look and are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddim_core.common.checks import require_at_least, require_choice, settle_types
from ddim_core.diffusion.specs import NoiseSpec

Objective = Literal["epsilon", "v", "flow"]  # what a network learns to predict
Target = Literal["v", "flow"]
USUAL_NOISE = NoiseSpec()


@dataclass(frozen=True)
class ToyModelSpec:
    """A small U-Net that learns in minutes on a CPU.

    Attributes:
        resolution: Height and width of the images, in pixels.
        channels: 1 for grey images, 3 for RGB.
        widths: Channels of each level, from full resolution down, each level half the size.
        attention: Levels (indices into `widths`) that get self-attention.
        layers_per_block: Residual blocks per level.
        norm_groups: Groups of the group norms; every width is a multiple of it.
        n_classes: Classes that it is told of an image; None is an unconditional network.
    """

    resolution: int = 8
    channels: int = 1
    widths: tuple[int, ...] = (16, 32, 32)
    attention: tuple[int, ...] = ()
    layers_per_block: int = 1
    norm_groups: int = 8
    n_classes: int | None = None

    def __post_init__(self) -> None:
        if self.n_classes is not None:
            require_at_least("n_classes", self.n_classes, 1)
        require_at_least("layers_per_block", self.layers_per_block, 1)
        require_at_least("norm_groups", self.norm_groups, 1)
        halvings = 2 ** (len(self.widths) - 1)
        if self.resolution < halvings or self.resolution % halvings:
            raise ValueError(
                f"resolution is {self.resolution}; {len(self.widths)} widths need a multiple "
                f"of {halvings}"
            )
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}; it must be 1 or 3")
        if any(width < 1 or width % self.norm_groups for width in self.widths):
            raise ValueError(
                f"widths are {self.widths}; each must be a multiple of norm_groups, "
                f"{self.norm_groups}"
            )
        if any(not 0 <= level < len(self.widths) for level in self.attention):
            raise ValueError(
                f"attention is {self.attention}; levels are 0 to {len(self.widths) - 1}"
            )


@dataclass(frozen=True)
class TrainSpec:
    """How a noise model is trained; with the data set's digest it decides the weights.

    It learns the noise, epsilon; `TargetSpec` is of those that learn something else.

    Attributes:
        model: The network.
        noise: The schedule it learns to invert.
        steps: Optimiser steps in all; the learning rate decays to 0 over them.
        batch_size: Images per step.
        learning_rate: Peak of the schedule.
        warmup_steps: Steps over which the learning rate rises linearly to its peak.
        ema_decay: Largest decay of the moving average of the weights, in [0, 1).
        gradient_clip: Largest norm of the gradient.
        flip: Mirror half of the images; wrong for digits and letters.
        label_drop: Share of images whose class is kept from a class-conditional network, in
            [0, 1): what it learns of these is the unconditional half of guidance.
        seed: Keys the initial weights, the batches, the timesteps and the noise.
    """

    model: ToyModelSpec = ToyModelSpec()
    noise: NoiseSpec = USUAL_NOISE
    steps: int = 2500
    batch_size: int = 128
    learning_rate: float = 4e-3
    warmup_steps: int = 100
    ema_decay: float = 0.995
    gradient_clip: float = 1.0
    flip: bool = False
    label_drop: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        require_at_least("steps", self.steps, 1)
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("warmup_steps", self.warmup_steps, 0)
        require_at_least("seed", self.seed, 0)
        if not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if not 0.0 <= self.label_drop < 1.0:
            raise ValueError(f"label_drop is {self.label_drop}; it must lie in [0, 1)")
        if self.learning_rate <= 0.0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")
        if self.gradient_clip <= 0.0:
            raise ValueError(f"gradient_clip is {self.gradient_clip}; it must be positive")

    @property
    def objective(self) -> Objective:
        """What the network learns to predict."""
        return "epsilon"


@dataclass(frozen=True)
class TargetSpec(TrainSpec):
    """How a model is trained that predicts something else than the noise.

    A record of its own and no field of `TrainSpec`, since a field would give another digest, and
    another saved state, to every training that there was before.

    Attributes:
        target: `v`, of the schedule `noise`; or `flow`, the velocity of a rectified flow, which has
            no schedule: of `noise` it takes T alone, by which the network's timesteps are counted.
    """

    target: Target = "flow"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("target", self.target, get_args(Target))

    @property
    def objective(self) -> Objective:
        return self.target


@dataclass(frozen=True)
class ClassifierSpec:
    """How the small classifier behind the `classifier` features is trained.

    Attributes:
        steps: Optimiser steps in all.
        batch_size: Images per step.
        learning_rate: Of the first step; it falls linearly to 0.
        width: Channels of the first convolution, a multiple of 8.
        n_features: d, the size of the penultimate layer.
        shift: Largest random shift of a training image, in pixels, each way.
        seed: Keys the initial weights, the batches and the shifts.
    """

    steps: int = 600
    batch_size: int = 128
    learning_rate: float = 2e-3
    width: int = 16
    n_features: int = 64
    shift: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        for name in ("steps", "batch_size", "width"):
            require_at_least(name, getattr(self, name), 1)
        if self.width % 8:
            raise ValueError(f"width is {self.width}; it must be a multiple of 8 (group norms)")
        require_at_least("shift", self.shift, 0)
        require_at_least("seed", self.seed, 0)
        if self.learning_rate <= 0.0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be positive")
