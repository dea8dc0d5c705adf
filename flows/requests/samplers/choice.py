"""Which sampler settings a grid can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import LEAST_SEED_TOO_LARGE, MOST_IMAGES
from ddim_core.diffusion.specs import USUAL_ETAS, Dtype, Spacing
from ddim_core.samplers.catalogue import SIGMA_HAT
from ddim_core.samplers.name import parse_sampler
from flows.requests.samplers.guidance import GuidanceText, apart, parse_guidance, together

LEAST_IMAGES = 2  # one image has no covariance
MOST_SCALE = 100  # of a LoRA

Steps = Annotated[tuple[int, ...], Field(min_length=1, description="Numbers of steps S.")]
Etas = Annotated[
    tuple[float, ...],
    Field(description="Noise fractions eta in [0, 1]; 0 is deterministic DDIM, 1 is DDPM-like."),
]
SpacingChoice = Annotated[
    Spacing,
    Field(description="How S timesteps are chosen: uniform, quad, leading, linspace or trailing."),
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        lt=LEAST_SEED_TOO_LARGE,
        description="Keys all that is random: every image's stream, and trainings.",
    ),
]
DtypeChoice = Annotated[
    Dtype,
    Field(
        description="Number format of the networks that draw; a setting in another is another "
        "cell. tf32 is float32 with products of a GPU's tensor cores; float64 is for the small "
        "models alone."
    ),
]


@dataclass(frozen=True)
class SamplerChoice:
    """The cells."""

    steps: Steps = (5, 10, 20, 50)
    samplers: Annotated[
        tuple[str, ...],
        Field(
            examples=[["own", "ddim", "dpmpp_2m/karras", "unipc?solver_order=3"]],
            description="Samplers, as own,ddim,dpmpp_2m/karras; empty is ddim, or own where only a "
            "pipeline draws. NAME[/SIGMAS][?key=value&...], such as unipc?solver_order=3; `own` is "
            "the scheduler that lies in the checkpoint; NAME@4 is drawn at guidance 4 alone, "
            "whatever `guidance` lists. docs/samplers.md has all names.",
        ),
    ] = ()
    etas: Etas = tuple(USUAL_ETAS)
    sigma_hat: Annotated[
        bool | None,
        Field(
            description="Also the larger DDPM variance; empty: only where etas are the usual ones. "
            "It is the official code's ddpm_noisy, which clips each predicted x0 to [-1, 1] (but "
            "for latents) where the other lines do not."
        ),
    ] = None
    spacing: SpacingChoice = "uniform"
    clip: Annotated[
        bool,
        Field(
            description="Clip each predicted x0 to [-1, 1] on every line. Off, sigma-hat alone "
            "still does, as the official code; latents are never clipped."
        ),
    ] = False
    guidance: Annotated[
        tuple[GuidanceText, ...],
        Field(
            min_length=1,
            description="Scales of classifier-free guidance, with classes or prompts, as 2,4; or "
            "4@0.2-3, which holds at noise levels from 0.2 to 3 alone. 0 leaves the class out, 1 "
            "is no guidance. Image k is asked to be of class k mod n_classes.",
        ),
    ] = (1.0,)
    guidance_interval: Annotated[
        tuple[float, ...],
        Field(
            description="Guidance only at noise levels from LOW to HIGH, as 0,0.7, of all scales "
            "that name none: of a flow the share of noise (t of REPA, 1 - t of SiT), else noise "
            "over signal. Empty: at all.",
        ),
    ] = ()
    guidance_channels: Annotated[
        int | None,
        Field(
            ge=1,
            le=1024,
            description="So many first channels are guided, as 3 by DiT's code; empty: all.",
        ),
    ] = None
    lora_scales: Annotated[
        tuple[float, ...],
        Field(min_length=1, description="How much of the LoRA files counts; 0 is the base alone."),
    ] = (1.0,)
    dtype: DtypeChoice = "float32"
    n_images: Annotated[
        int,
        Field(
            ge=LEAST_IMAGES,
            le=MOST_IMAGES,
            description="Images per cell; with more, only new are drawn.",
        ),
    ] = 2048
    seed: Seed = 0
    shard_size: Annotated[
        int,
        Field(
            ge=LEAST_IMAGES, le=MOST_IMAGES, description="Images per unit of work and of caching."
        ),
    ] = 2048

    def settled(self) -> SamplerChoice:
        """Returns the same choice with nothing left open: names in full, each once, and sigma-hat
        on or off; or empty, where it is on because nothing but the usual is asked for.

        Raises:
            ValueError: For a sampler that there is not.
        """
        for eta in self.etas:
            if not 0.0 <= eta <= 1.0:
                raise ValueError(f"eta is {eta}; it must lie in [0, 1]")
        for scale in self.lora_scales:
            if not abs(scale) <= MOST_SCALE:
                raise ValueError(f"lora_scales has {scale:g}; it must lie within +-{MOST_SCALE}")
        asked_for = (apart(text) for text in self.samplers)
        names = dict.fromkeys(together(parse_sampler(name).text, at) for name, at in asked_for)
        sigma_hat = self.with_sigma_hat or SIGMA_HAT in names
        if names and sigma_hat:
            names[SIGMA_HAT] = None
        asked = None if sigma_hat and self.sigma_hat is None and not names else sigma_hat
        return replace(self, samplers=tuple(names), sigma_hat=asked)

    @property
    def by_guidance(self) -> list[SamplerChoice]:
        """The same choice in parts of one guidance each: samplers that name none first, all scales
        together; then those that are drawn at one scale alone."""
        named = [apart(text) for text in self.samplers]
        free = tuple(name for name, at in named if at is None)
        first = [replace(self, samplers=free)] if free or not named else []
        own = dict.fromkeys(at for _, at in named if at is not None)
        led = {at: tuple(name for name, other in named if other == at) for at in own}
        return first + [
            replace(self, samplers=names, guidance=(at,), sigma_hat=SIGMA_HAT in names)
            for at, names in led.items()
        ]

    @property
    def is_unguided(self) -> bool:
        """Whether all scales are 1, which is no guidance."""
        scales = (given for part in self.by_guidance for given in part.guidance)
        return all(parse_guidance(given)[0] == 1.0 for given in scales)

    @property
    def with_sigma_hat(self) -> bool:
        """Whether sigma-hat is a line: where it is asked for, or nothing but the usual is."""
        usual = not self.samplers and list(self.etas) == list(USUAL_ETAS)
        return usual if self.sigma_hat is None else self.sigma_hat
