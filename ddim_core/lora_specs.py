"""Frozen records that say how a LoRA is trained; one record for each thing that is cached apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddim_core.specs import require_at_least, require_choice, settle_types

RateSchedule = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
]
Precision = Literal["no", "fp16", "bf16"]


@dataclass(frozen=True)
class LatentSpec:
    """How training images become latents.

    Attributes:
        resolution: Side in pixels of the square, or of the square of equal area, that images are
            cut to.
        buckets: Keep each image's shape: cut it to the nearest of the sizes of about
            resolution^2 pixels, instead of to a square.
        flip: Half of the time an image is mirrored; wrong for letters and faces.
        crops: 0 cuts out the centre; k > 0 makes k random cuts of each image, of which training
            takes one at each visit.
        seed: Keys the random cuts.
    """

    resolution: int = 512
    buckets: bool = False
    flip: bool = False
    crops: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least("resolution", self.resolution, 1)
        require_at_least("crops", self.crops, 0)
        require_at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA and its training; with base and data it decides the weights.

        W' = W + s B A,  s = alpha / rank, or alpha / sqrt(rank) with rslora

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1; defaults as in diffusers' scripts.

    Attributes:
        rank: Rows of A and columns of B, at least 1.
        alpha: See above; None is `rank`, so that s = 1.
        dropout: Share of A's inputs set to 0 in training, in [0, 1).
        targets: Layers that get a LoRA: the groups `attention`, `feed-forward`, `convolutions`,
            or ends of names of layers of the U-Net.
        rslora: The rank-stabilised s (Kalajdzievski 2023, arXiv:2312.03732).
        dora: Learn direction and length of the columns apart (Liu et al. 2024, arXiv:2402.09353).
        text_encoder: Train a LoRA of the text encoder's attention too.
        steps: Optimiser steps in all.
        batch_size: Images per forward; a step sees `accumulation` times as many.
        accumulation: Forwards per step.
        learning_rate: Peak of the schedule.
        text_learning_rate: That of the text encoder's LoRA; None is `learning_rate`.
        schedule: Of the learning rate, by diffusers' names.
        warmup_steps: Steps over which it rises linearly (all schedules but `constant`).
        cycles: Restarts of the schedule `cosine_with_restarts`.
        weight_decay: Of AdamW.
        gradient_clip: Largest norm of the gradient; 0 is no limit.
        precision: Format of the forward: `no` is float32; weights of the LoRA stay float32.
        snr_gamma: Min-SNR weighting (Hang et al. 2023, arXiv:2303.09556, section 3.4); None: off.
        noise_offset: Share of a noise that is constant over each channel of an image.
        prior_weight: Of the class images' loss (Ruiz et al. 2022, arXiv:2208.12242, eq. 2).
        caption_dropout: Share of captions replaced by the empty one, in [0, 1).
        checkpoint_every: Steps between weights that are kept for validation; 0 keeps only the last.
        checkpoint_limit: How many of these are kept, the newest; 0 is all.
        seed: Keys the initial weights, the order, the timesteps, the noise and the dropouts.
    """

    rank: int = 4
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ("attention",)
    rslora: bool = False
    dora: bool = False
    text_encoder: bool = False
    steps: int = 500
    batch_size: int = 4
    accumulation: int = 1
    learning_rate: float = 1e-4
    text_learning_rate: float | None = None
    schedule: RateSchedule = "constant"
    warmup_steps: int = 0
    cycles: int = 1
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    precision: Precision = "no"
    snr_gamma: float | None = None
    noise_offset: float = 0.0
    prior_weight: float = 1.0
    caption_dropout: float = 0.0
    checkpoint_every: int = 0
    checkpoint_limit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        for name in ("rank", "steps", "batch_size", "accumulation", "cycles"):
            require_at_least(name, getattr(self, name), 1)
        for name in ("warmup_steps", "checkpoint_every", "checkpoint_limit", "seed"):
            require_at_least(name, getattr(self, name), 0)
        require_choice("schedule", self.schedule, get_args(RateSchedule))
        require_choice("precision", self.precision, get_args(Precision))
        for name in ("dropout", "caption_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie in [0, 1)")
        for name in ("alpha", "learning_rate", "text_learning_rate", "snr_gamma"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be positive")
        for name in ("weight_decay", "gradient_clip", "noise_offset", "prior_weight"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if self.schedule == "constant" and self.warmup_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, but the schedule constant has no warm-up; "
                "take constant_with_warmup"
            )
        if not self.targets:
            raise ValueError("targets is empty; name at least one group, such as attention")

    @property
    def scaling(self) -> float:
        """s, the factor in front of B A."""
        alpha = float(self.rank) if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)


@dataclass(frozen=True)
class PictureSpec:
    """How a pipeline draws pictures.

    Attributes:
        steps: Denoising steps, of the base's own scheduler.
        guidance: Scale g of classifier-free guidance; 1 is none.
        resolution: Height and width in pixels; 0 is the base's own.
        seed: The i-th picture of a prompt has a stream of its own, keyed by (seed, i).
    """

    steps: int = 30
    guidance: float = 7.5
    resolution: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        require_at_least("steps", self.steps, 1)
        require_at_least("seed", self.seed, 0)
        require_at_least("resolution", self.resolution, 0)
        if not 0.0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is {self.guidance}; it must be at least 0")


@dataclass(frozen=True)
class LoraExecution:
    """How a LoRA is trained on this machine; no part of any cache key.

    Attributes:
        device: A torch device; `cpu`, or `cuda` (untested).
        threads: Torch threads.
        processes: Processes that share each batch, by accelerate; 1 needs none.
        gradient_checkpointing: Compute activations twice instead of keeping them.
    """

    device: str = "cpu"
    threads: int = 2
    processes: int = 1
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        require_at_least("threads", self.threads, 1)
        require_at_least("processes", self.processes, 1)
