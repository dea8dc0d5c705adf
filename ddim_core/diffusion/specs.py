"""Frozen records that say what is asked for; everything else follows from them.

Floats are made floats and integers integers on construction, so that two ways to write one
setting (0 and 0.0) have one digest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

from ddim_core.common.checks import require_at_least, require_choice, settle_types
from ddim_core.common.digest import LATER

Variance = Literal["eta", "sigma_hat"]
Spacing = Literal["uniform", "quad", "leading", "linspace", "trailing"]
PredictionType = Literal["epsilon", "sample", "v_prediction"]
Weights = Literal["ema", "raw"]
Dtype = Literal["float32", "tf32", "bfloat16", "float16", "float64"]
USUAL_ETAS = [0.0, 0.2, 0.5, 1.0]  # the lines of a grid where none are named; never changed
# From native size to a feature network, see `resize`.
RESIZES = ("tf1", "clean", "torch", "pillow", "bicubic", "crop")
ScheduleKind = Literal["linear", "quad", "cosine", "constant", "sigmoid", "jsd", "given"]


@dataclass(frozen=True)
class NoiseSpec:
    """A noise schedule by its parameters.

    Attributes:
        kind: Shape of beta over t; `quad` is linear in sqrt(beta) (diffusers: scaled_linear).
        n_train: T, the number of training timesteps.
        beta_start, beta_end: First and last beta, where the kind has them.
        zero_snr: Rescale so that alpha_bar is 0 at the last timestep (arXiv:2305.08891).
        betas: The T betas themselves, for kind `given`.
    """

    kind: ScheduleKind = "linear"
    n_train: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    zero_snr: bool = False
    betas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        settle_types(self)
        require_choice("kind", self.kind, get_args(ScheduleKind))
        require_at_least("n_train", self.n_train, 1)


@dataclass(frozen=True)
class SamplerSpec:
    """One sampler setting: how x_T becomes an image.

    Attributes:
        steps: S, the number of steps asked for, 1..T.
        eta: Noise fraction in [0, 1]: 0 is deterministic DDIM, 1 is DDPM-like.
        variance: `eta`, or `sigma_hat`: the larger DDPM variance of the official code (its
            `ddpm_noisy`; eta plays no part then and is 1).
        spacing: How the S timesteps are chosen among the T.
        steps_offset: Added to every timestep of spacing `leading`.
        prediction_type: What the network predicts: the noise, x0 (`sample`), or v.
        clip: Clip the predicted x0 to [-clip_range, clip_range].
        clip_range: See `clip`; unit of pixels in [-1, 1].
        dynamic_threshold: Quantile in (0, 1] of |x0| for dynamic thresholding, instead of `clip`
            (Imagen, arXiv:2205.11487); `clip_range` then bounds the threshold from above.
        rederive_eps: Take eps again from x_t and the clipped x0 (diffusers:
            use_clipped_model_output); `sigma_hat` always does, as the official code.
        guidance_scale: g >= 0 of classifier-free guidance eps_u + g (eps_c - eps_u) with a
            class-conditional model: 0 leaves the class out, 1 is the conditional model itself.
        guidance_interval: The noise levels, from low to high and both with, at which there is
            guidance; elsewhere the conditional model alone. Noise over signal of a diffusion model
            and of an EDM, the share of noise of a flow. None: at all.
        guidance_channels: So many first channels are guided, the others the conditional model's
            own, as DiT's code guides 3 of 4. None: all.
        guide: Digest of the stored checkpoint whose network guides it, in place of no class.
    """

    steps: int
    eta: float = 0.0
    variance: Variance = "eta"
    spacing: Spacing = "uniform"
    steps_offset: int = 0
    prediction_type: PredictionType = "epsilon"
    clip: bool = False
    clip_range: float = 1.0
    dynamic_threshold: float | None = None
    rederive_eps: bool = False
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = field(default=None, metadata={LATER: True})
    guidance_channels: int | None = field(default=None, metadata={LATER: True})
    guide: str | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        settle_types(self)
        require_choice("variance", self.variance, get_args(Variance))
        require_choice("spacing", self.spacing, get_args(Spacing))
        require_choice("prediction_type", self.prediction_type, get_args(PredictionType))
        require_at_least("steps", self.steps, 1)
        if self.variance == "sigma_hat":
            object.__setattr__(self, "eta", 1.0)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}; it must lie in [0, 1]")
        if self.dynamic_threshold is not None and not 0.0 < self.dynamic_threshold <= 1.0:
            raise ValueError(
                f"dynamic_threshold is {self.dynamic_threshold}; it is a quantile in (0, 1]"
            )
        if self.clip_range <= 0.0:
            raise ValueError(f"clip_range is {self.clip_range}; it must be positive")
        if not 0.0 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale is {self.guidance_scale}; it must be at least 0")
        _require_where_guided(self)

    @property
    def line(self) -> str:
        """Its line of a grid, for people: all that is not S."""
        line = "sigma-hat" if self.variance == "sigma_hat" else f"eta={self.eta:g}"
        notes = ["clips"] * self.clip
        notes += [f"g={self.guidance_scale:g}{_guided(self)}"] * (self.guidance_scale != 1.0)
        return f"{line} ({', '.join(notes)})" if notes else line

    @property
    def at(self) -> str:
        """What stands beside S where one cell of a grid is chosen: `0.5`, `sigma-hat`."""
        return "sigma-hat" if self.variance == "sigma_hat" else f"{self.eta:g}"


@dataclass(frozen=True)
class SchedulerSpec:
    """One setting of a scheduler of diffusers: how x_T becomes an image by what people ship.

    Attributes:
        sampler: Its name in full, `NAME[/SIGMAS][?key=value&...]`, as `ddim_core.samplers.name`
            writes it.
        steps: S, the number of steps asked for.
        eta: Noise fraction of the samplers that have one, in [0, 1].
        guidance_scale: g of classifier-free guidance, 1 is none; what a distilled pipeline is told.
        prediction_type: What the network predicts.
        pipeline: The class of the pipeline whose own call draws; empty for our loop over its U-Net.
        batch: How many images the pipeline draws at once, which decides their last bits.
        loras: LoRA files over the pipeline: the digest of each, and how much of it counts.
        guidance_interval: As of `SamplerSpec`.
        guidance_channels, guide: As of `SamplerSpec`; not of a pipeline.
        resolution: Height and width in pixels that a pipeline is asked for; None for its own.
        libraries: Those whose arithmetic it is, each with its version.
    """

    sampler: str
    steps: int
    eta: float = 0.0
    guidance_scale: float = 1.0
    prediction_type: str = "epsilon"
    pipeline: str = ""
    batch: int = 1
    libraries: tuple[tuple[str, str], ...] = ()
    loras: tuple[tuple[str, float], ...] = ()
    guidance_interval: tuple[float, float] | None = field(default=None, metadata={LATER: True})
    guidance_channels: int | None = field(default=None, metadata={LATER: True})
    guide: str | None = field(default=None, metadata={LATER: True})
    resolution: int | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        settle_types(self)
        require_at_least("steps", self.steps, 1)
        require_at_least("batch", self.batch, 1)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}; it must lie in [0, 1]")
        if not 0.0 <= self.guidance_scale < math.inf:
            raise ValueError(f"guidance_scale is {self.guidance_scale}; it must be at least 0")
        _require_where_guided(self)

    @property
    def line(self) -> str:
        """Its line of a grid, for people: all that is not S."""
        notes = [f"eta={self.eta:g}"] * (self.eta != 0.0)
        notes += [f"g={self.guidance_scale:g}{_guided(self)}"] * (self.guidance_scale != 1.0)
        notes += [f"lora {digest[:6]}:{scale:g}" for digest, scale in self.loras]
        return f"{self.sampler} ({', '.join(notes)})" if notes else self.sampler

    @property
    def at(self) -> str:
        """What stands beside S where one cell of a grid is chosen: `unipc`, `tcd,0.2`."""
        return f"{self.sampler},{self.eta:g}" if self.eta else self.sampler


Spec = TypeVar("Spec", bound="SamplerSpec | SchedulerSpec")


def guided_by(
    spec: Spec, scale: float, interval: Sequence[float], channels: int | None, guide: str | None
) -> Spec:
    """Returns a setting that is guided by a scale.

    Args:
        spec: Without.
        scale: g; at 1, which is no guidance, the others play no part.
        interval: Low and high noise level; empty for all.
        channels: So many first ones; None for all.
        guide: Digest of the checkpoint that guides; None where no class does.

    Raises:
        ValueError: If the interval is none, or channels or a guide are of a pipeline, whose own
            call guides all channels and by itself.
    """
    led = replace(spec, guidance_scale=scale)
    if scale == 1.0 or not (interval or channels or guide):
        return led
    if isinstance(spec, SchedulerSpec) and spec.pipeline and (channels or guide):
        raise ValueError(
            f"{'guidance_channels' if channels else 'guide'} is given, and the call of a "
            f"{spec.pipeline} guides by itself and on all channels; leave it out"
        )
    where: Any = tuple(interval) or None
    return replace(led, guidance_interval=where, guidance_channels=channels, guide=guide)


def _require_where_guided(spec: SamplerSpec | SchedulerSpec) -> None:
    interval, channels = spec.guidance_interval, spec.guidance_channels
    if interval is not None:
        levels = tuple(float(level) for level in interval)
        if not (len(levels) == 2 and 0.0 <= levels[0] < levels[1] < math.inf):
            raise ValueError(
                f"guidance_interval is {','.join(f'{level:g}' for level in levels)}; it must be a "
                "low and a higher noise level of 0 or more, such as 0,0.7"
            )
        object.__setattr__(spec, "guidance_interval", levels)
    if channels is not None:
        require_at_least("guidance_channels", channels, 1)


def _guided(spec: SamplerSpec | SchedulerSpec) -> str:
    interval, channels = spec.guidance_interval, spec.guidance_channels
    of = f" of {channels} channels" if channels else ""
    of += f" in [{interval[0]:g},{interval[1]:g}]" if interval else ""
    return f"{of} by {spec.guide[:6]}" if spec.guide else of


@dataclass(frozen=True)
class OnCard:
    """What a GPU, or another card, adds to what an image's bits depend on.

    Attributes:
        kind: `cuda`, `mps`, `xpu`; `cpu` where CPUs stand in for cards. Which of them plays no
            part: cards of one host are taken to be of one make.
        batch: Images per network call in loops of the project's own; a pipeline's is its sampler's.
        compiled: Whether the networks that draw run as torch.compile made them.
    """

    kind: str
    batch: int
    compiled: bool = False

    def __post_init__(self) -> None:
        require_at_least("batch", self.batch, 1)


@dataclass(frozen=True)
class GridCell:
    """One sampler setting on one checkpoint: the unit that gets a score.

    Attributes:
        sampler: The sampler setting: ours, or one of diffusers' schedulers.
        noise: A schedule to use instead of the checkpoint's own, or None.
        seed: Keys every image's random stream together with the image's index; cells of one
            seed share x_T image by image.
        dtype: Number format of the sampling arithmetic.
        prompts: Digest of the stored list of prompts, for a model that is told of a text.
        card: Where it is drawn, if not on a CPU as CPUs draw.
    """

    sampler: SamplerSpec | SchedulerSpec
    noise: NoiseSpec | None = None
    seed: int = 0
    dtype: Dtype = "float32"
    prompts: str | None = None
    card: OnCard | None = field(default=None, metadata={LATER: True})

    def __post_init__(self) -> None:
        require_at_least("seed", self.seed, 0)
        require_choice("dtype", self.dtype, get_args(Dtype))

    @property
    def label(self) -> str:
        """The cell's short name for people: its coordinates in the grid."""
        return f"S={self.sampler.steps} {self.sampler.line}"


@dataclass(frozen=True)
class ImageSpec:
    """How a data set's images are made ready, besides their size.

    Attributes:
        max_broken: So many images that cannot be read are left out, and named; more are refused.
        background: The colour (CSS) under transparent pixels.
        skin_tones: Emoji only: with the variants of skin tone.
    """

    max_broken: int = 0
    background: str = "white"
    skin_tones: bool = True

    def __post_init__(self) -> None:
        require_at_least("max_broken", self.max_broken, 0)

    @property
    def label(self) -> str:
        """What differs from the usual look, for people; empty where nothing does."""
        differs = ["neutral"] * (not self.skin_tones)
        differs += [f"on {self.background}"] * (self.background != "white")
        return ", ".join(differs)


@dataclass(frozen=True)
class Execution:
    """How work is done on this machine; no part of any result, so no part of any cache key.

    Attributes:
        device: `cpu`, or cards: `cuda` for all of the host, `cuda:1`, `cuda:0,cuda:2`, `mps`.
        batch_size: Images per network call.
        threads: Torch threads per task.
    """

    device: str = "cpu"
    batch_size: int = 128
    threads: int = 1

    def __post_init__(self) -> None:
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("threads", self.threads, 1)
