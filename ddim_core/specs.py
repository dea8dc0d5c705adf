"""Frozen records that say what is asked for; everything else follows from them.

Floats are made floats and integers integers on construction, so that two ways to write one
setting (0 and 0.0) have one digest.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Variance = Literal["eta", "sigma_hat"]
Spacing = Literal["uniform", "quad", "leading", "linspace", "trailing"]
PredictionType = Literal["epsilon", "sample", "v_prediction"]
ScheduleKind = Literal["linear", "quad", "cosine", "constant", "sigmoid", "jsd", "given"]


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")


def require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")


def _settle_types(record: Any) -> None:
    """Turns whole numbers given for float fields into floats (fields are annotated as text)."""
    for field in fields(record):
        value = getattr(record, field.name)
        if value is not None and str(field.type).startswith("float"):
            object.__setattr__(record, field.name, float(value))


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
        _settle_types(self)
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
        guidance_scale: Classifier-free guidance eps_u + g (eps_c - eps_u); 1 is no guidance.
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

    def __post_init__(self) -> None:
        _settle_types(self)
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
