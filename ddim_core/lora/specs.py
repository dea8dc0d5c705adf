"""Frozen records that say how a LoRA is trained; one record for each thing that is cached apart."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field

from ddim_core.common.checks import (
    LEAST_SEED_TOO_LARGE,
    MOST_BATCH,
    MOST_DRAWING_STEPS,
    MOST_STEPS,
    MOST_THREADS,
    require_at_least,
    require_at_most,
    require_side,
    settle_types,
)
from ddim_core.common.declared import settle

RateSchedule = Literal[
    "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
]
Precision = Literal["no", "fp16", "bf16"]
FlowWeighting = Literal["none", "logit_normal", "mode", "cosmap", "sigma_sqrt"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
MOST_RANK = 1024  # published LoRAs have at most 320
GROUPS = ("attention", "feed-forward", "convolutions")  # of layers, in `adapters`
ALIKE = 0.75  # of two words, from which one is a slip of the other
Share = Annotated[float, Field(ge=0, lt=1)]


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
        require_side("resolution", self.resolution)
        require_at_least("crops", self.crops, 0)
        require_at_least("seed", self.seed, 0)


@dataclass(frozen=True)
class LoraSpec:
    """The LoRA and its training; with base and data it decides the weights.

        W' = W + s B A,  s = alpha / rank, or alpha / sqrt(rank) with rslora

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1; defaults as in diffusers' scripts.

    Raises:
        ValueError: For the first setting that cannot be, with its value.
    """

    rank: Annotated[int, Field(ge=1, le=MOST_RANK, description="Rows of A and columns of B.")] = 4
    alpha: Annotated[
        Positive | None, Field(description="The scaling is alpha / rank; empty is the rank.")
    ] = None
    dropout: Annotated[Share, Field(description="Share of A's inputs set to 0 in training.")] = 0.0
    targets: Annotated[
        tuple[str, ...],
        Field(
            min_length=1,
            description="Layers that get a LoRA: attention, feed-forward, convolutions, or ends "
            "of names of layers of the network.",
        ),
    ] = ("attention",)
    rslora: Annotated[
        bool,
        Field(description="Scaling alpha / sqrt(rank) (Kalajdzievski 2023, arXiv:2312.03732)."),
    ] = False
    dora: Annotated[
        bool,
        Field(
            description="Learn direction and length of the columns apart (Liu et al. 2024, "
            "arXiv:2402.09353)."
        ),
    ] = False
    text_encoder: Annotated[
        bool,
        Field(description="Train a LoRA of the CLIP text encoders' attention too; never of T5."),
    ] = False
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS, description="Optimiser steps in all.")] = 500
    batch_size: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_BATCH,
            description="Images per forward; a step sees `accumulation` times as many.",
        ),
    ] = 4
    accumulation: Annotated[int, Field(ge=1, le=MOST_BATCH, description="Forwards per step.")] = 1
    learning_rate: Annotated[Positive, Field(description="Peak of its schedule.")] = 1e-4
    text_learning_rate: Annotated[
        Positive | None,
        Field(description="Of the text encoder's LoRA; empty is the learning rate."),
    ] = None
    schedule: Annotated[
        RateSchedule, Field(description="Of the learning rate, by diffusers' names.")
    ] = "constant"
    warmup_steps: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_STEPS,
            description="Steps over which the rate rises, in all schedules but constant.",
        ),
    ] = 0
    cycles: Annotated[
        int, Field(ge=1, le=MOST_STEPS, description="Restarts of cosine_with_restarts.")
    ] = 1
    weight_decay: Annotated[NotNegative, Field(description="Of AdamW.")] = 1e-2
    gradient_clip: Annotated[
        NotNegative, Field(description="Largest norm of the gradient; 0 is no limit.")
    ] = 1.0
    precision: Annotated[
        Precision,
        Field(
            description="Format of the forward; `no` is float32. Weights of the LoRA stay float32."
        ),
    ] = "no"
    snr_gamma: Annotated[
        Positive | None,
        Field(
            description="Min-SNR weighting, such as 5; empty is none, as SD3 and Flux must have it "
            "(Hang et al. 2023, arXiv:2303.09556, section 3.4)."
        ),
    ] = None
    noise_offset: Annotated[
        NotNegative,
        Field(description="Share of a noise that is constant over a channel, such as 0.05."),
    ] = 0.0
    weighting: Annotated[
        FlowWeighting,
        Field(
            description="Of SD3 and Flux: which noise levels count, by diffusers' names; "
            "logit_normal and mode draw them so, cosmap and sigma_sqrt weigh the loss (Esser et "
            "al. 2024, arXiv:2403.03206, section 3.1)."
        ),
    ] = "none"
    logit_mean: Annotated[
        Finite, Field(description="Of logit_normal: above 0 is more noise-free images.")
    ] = 0.0
    logit_std: Annotated[Positive, Field(description="Of logit_normal.")] = 1.0
    mode_scale: Annotated[Finite, Field(description="Of mode: 0 is uniform.")] = 1.29
    precondition: Annotated[
        bool,
        Field(
            description="Of SD3 and Flux: the error is the clean image's, not the velocity's, "
            "as diffusers' script of SD3 takes it."
        ),
    ] = False
    trained_guidance: Annotated[
        NotNegative, Field(description="What Flux is told of guidance while it is trained.")
    ] = 3.5
    prior_weight: Annotated[
        NotNegative,
        Field(
            description="Weight of the class images' loss (Ruiz et al. 2022, arXiv:2208.12242, "
            "eq. 2)."
        ),
    ] = 1.0
    caption_dropout: Annotated[
        Share, Field(description="Share of captions replaced by the empty one.")
    ] = 0.0
    checkpoint_every: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_STEPS,
            description="Steps between weights that are kept; 0 keeps only the last.",
        ),
    ] = 0
    checkpoint_limit: Annotated[
        int,
        Field(ge=0, le=MOST_STEPS, description="How many of these are kept, the newest; 0 is all."),
    ] = 0
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=LEAST_SEED_TOO_LARGE,
            description="Keys all that is random: weights, order, timesteps, noise, cuts.",
        ),
    ] = 0

    def __post_init__(self) -> None:
        settle(self)
        for target in self.targets:
            _require_no_slip(target)
        if self.schedule == "constant" and self.warmup_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, but the schedule constant has no warm-up; "
                "take constant_with_warmup"
            )
        if self.warmup_steps and self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}; it must be below the {self.steps} steps, or "
                "the learning rate never reaches its peak"
            )

    @property
    def scaling(self) -> float:
        """s, the factor in front of B A."""
        alpha = float(self.rank) if self.alpha is None else self.alpha
        return alpha / (self.rank**0.5 if self.rslora else self.rank)


def _require_no_slip(target: str) -> None:
    """Refuses what is nearly the name of a group, before a base tells its layers' names."""
    if target not in GROUPS and (meant := get_close_matches(target, GROUPS, n=1, cutoff=ALIKE)):
        raise ValueError(
            f"targets has {target!r} (did you mean {meant[0]}?); give {', '.join(GROUPS)}, or ends "
            "of names of layers"
        )


# What diffusers' scripts of these kinds of bases have where nothing is asked.
USUAL_OF_SD3 = LoraSpec(weighting="logit_normal", precondition=True)
USUAL_OF_FLUX = LoraSpec(targets=("attention", "feed-forward"))


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
        require_at_most("steps", self.steps, MOST_DRAWING_STEPS)
        require_at_least("seed", self.seed, 0)
        require_side("resolution", self.resolution, 0)
        if not 0.0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance is {self.guidance}; it must be at least 0")

    def seeds(self, n: int) -> list[int]:
        """Returns the seeds of n pictures: from the spec's own on, of 63 bits."""
        return [(self.seed + i) % LEAST_SEED_TOO_LARGE for i in range(n)]


@dataclass(frozen=True)
class LoraExecution:
    """The machine; no part of any cache key.

    Raises:
        ValueError: For the first setting that cannot be, with its value.
    """

    device: Annotated[
        str,
        Field(
            description="cpu, cuda (a card of the host), cuda:1, mps, or auto: CUDA where it is. "
            "What a card computes has other bits."
        ),
    ] = "cpu"
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS, description="Torch threads.")] = 2
    processes: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_THREADS,
            description="Processes that share each batch, by accelerate; 1 needs none.",
        ),
    ] = 1
    gradient_checkpointing: Annotated[
        bool, Field(description="Compute activations twice instead of keeping them: less memory.")
    ] = False

    def __post_init__(self) -> None:
        settle(self)
