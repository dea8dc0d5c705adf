"""The cells that follow from what a grid was asked for and what its checkpoint says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from typing import Any

from ddim_core.diffusion.schedule import timesteps
from ddim_core.diffusion.specs import (
    USUAL_ETAS,
    GridCell,
    NoiseSpec,
    OnCard,
    SamplerSpec,
    SchedulerSpec,
    Variance,
    guided_by,
)
from ddim_core.samplers.catalogue import OWN, SAMPLERS, SIGMA_HAT
from ddim_core.samplers.families import DDIM, unless_all
from ddim_core.samplers.name import parse_sampler
from flows.requests.samplers.choice import SamplerChoice
from flows.requests.samplers.guidance import parse_guidance

Line = SamplerSpec | SchedulerSpec
ARITHMETIC = ("diffusers", "torch")
"""Libraries whose arithmetic an image of a scheduler is: steps, and the noise drawn on the way."""
TEXT_ARITHMETIC = (*ARITHMETIC, "transformers")  # of a pipeline, whose encoders are transformers'
ALL_ARITHMETIC = (*TEXT_ARITHMETIC, "peft")  # with LoRAs over it


@dataclass(frozen=True)
class Sampled:
    """What a checkpoint says of how it can be sampled.

    Attributes:
        n_train: T.
        prediction_type: What its network predicts.
        is_latent: It draws latents, which have no range to clip to.
        is_native: The project's own sampler can draw it.
        pipeline: The class of the pipeline whose call draws the rest; empty where our loop does.
        batch: How many images that call draws at once.
        loras: LoRA files over it, each with how much of it counts at scale 1.
        scheduler: Its own scheduler's configuration; None before it is known.
        card: What a card adds to its cells, where they are drawn on one.
        guide: Digest of the checkpoint that guides it; None where none does.
        resolution: Height and width that its pipeline's call is asked for; None for its own.
    """

    n_train: int
    prediction_type: str = "epsilon"
    is_latent: bool = False
    is_native: bool = True
    pipeline: str = ""
    batch: int = 1
    loras: tuple[tuple[str, float], ...] = ()
    scheduler: Mapping[str, Any] | None = None
    card: OnCard | None = None
    guide: str | None = None
    resolution: int | None = None


def cells_of(
    choice: SamplerChoice,
    known: Sampled,
    noise: NoiseSpec | None = None,
    prompts: str | None = None,
) -> list[GridCell]:
    """Returns a grid's cells, by line and then by S, each once.

    Args:
        choice: Settled.
        known: What the checkpoint says.
        noise: A schedule instead of the checkpoint's own.
        prompts: Digest of the stored prompts, if it is told of a text.

    Raises:
        ValueError: If a setting cannot be, such as S = 0, S > T or eta = 2.
    """
    if known.is_latent and choice.clip:
        raise ValueError("clip is on, and the checkpoint draws latents; clipping is for pixels")
    if choice.clip and not (known.is_native or known.pipeline):
        raise ValueError("clip is on, which is of our own sampler; it draws no flow and no EDM")
    _require_guided(choice)
    parts = choice.by_guidance
    return list(dict.fromkeys(
        cell for part in parts for cell in _cells_of(part, known, noise, prompts)
    ))  # fmt: skip


def _cells_of(
    choice: SamplerChoice, known: Sampled, noise: NoiseSpec | None, prompts: str | None
) -> list[GridCell]:
    """The cells of samplers that name no guidance of their own."""
    cells = []
    lines = [laid for line in _lines(choice, known) for laid in _with_loras(line, choice, known)]
    _require_used(choice, known, lines)
    for line, (scale, own) in product(lines, map(parse_guidance, choice.guidance)):
        for steps in _steps_of(line, choice):
            among = unless_all(own or choice.guidance_interval, line, known.scheduler, noise)
            led = scale, among, choice.guidance_channels, known.guide
            sampler = guided_by(replace(line, steps=steps), *led)
            if isinstance(sampler, SamplerSpec):
                timesteps(known.n_train, steps, choice.spacing)
            cells.append(GridCell(sampler, noise, choice.seed, choice.dtype, prompts, known.card))
    return cells


def _steps_of(line: Line, choice: SamplerChoice) -> Sequence[int]:
    """The S of a line: those asked for, but of a sampler with a list of its own its length."""
    listed = None if isinstance(line, SamplerSpec) else parse_sampler(line.sampler).n_listed
    return [listed] if listed else list(dict.fromkeys(choice.steps))


def _require_guided(choice: SamplerChoice) -> None:
    where = "guidance_interval" if choice.guidance_interval else "guidance_channels"
    if getattr(choice, where) and choice.is_unguided:
        raise ValueError(f"{where} is given, and guidance is 1, which is none; give another scale")


def _require_used(choice: SamplerChoice, known: Sampled, lines: Sequence[Line]) -> None:
    """Makes sure that what was asked for plays a part in some line.

    Raises:
        ValueError: If it does not.
    """
    if not lines:
        raise ValueError("etas is empty, and the samplers that are named have no line without one")
    names = ", ".join(choice.samplers) or OWN
    if any(isinstance(line, SamplerSpec) for line in lines):
        return
    if known.is_native and (choice.clip or choice.spacing != "uniform"):
        what = "clip" if choice.clip else "spacing"
        raise ValueError(
            f"{what} is of the project's own ddim and sigma-hat, and none is among {names}; leave "
            "it out, or set the scheduler's own keys (clip_sample, timestep_spacing)"
        )
    others = list(choice.etas) != list(USUAL_ETAS) and any(choice.etas)
    named = [line.sampler for line in lines if not isinstance(line, SamplerSpec)]
    is_open = known.scheduler is None and any(parse_sampler(name).name == OWN for name in named)
    if others and not is_open and not any(_may_have_eta(name, known) for name in named):
        raise ValueError(f"etas are given, and none of {names} has one; leave them out")


def _lines(choice: SamplerChoice, known: Sampled) -> list[Line]:
    """The grid's lines without S and guidance, ours first."""
    names = choice.samplers or ((DDIM,) if known.is_native else (OWN,))
    etas = dict.fromkeys(choice.etas)
    if not known.is_native:
        if choice.sigma_hat:
            raise ValueError(
                "sigma-hat is of the project's own sampler, which does not draw a "
                f"{known.pipeline or 'flow or an EDM'}; leave it out"
            )
        return _distinct(line for name in names for line in _of_scheduler(name, etas, known))
    rows: list[tuple[Variance, float]] = [("eta", eta) for eta in etas] if DDIM in names else []
    rows += [("sigma_hat", 1.0)] if choice.with_sigma_hat else []
    kind: Any = known.prediction_type  # a native checkpoint has one of the three
    native = [
        SamplerSpec(
            steps=1,
            eta=eta,
            variance=variance,
            spacing=choice.spacing,
            prediction_type=kind,
            # sigma_hat clips as the official code does
            clip=choice.clip or (variance == "sigma_hat" and not known.is_latent),
        )
        for variance, eta in rows
    ]
    others = [name for name in names if name not in (DDIM, SIGMA_HAT)]
    drawn = (line for name in others for line in _of_scheduler(name, etas, known))
    return [*native, *_distinct(drawn)]


def _distinct(lines: Iterable[SchedulerSpec]) -> list[Line]:
    return list(dict.fromkeys(lines))


def _of_scheduler(name: str, etas: dict[float, None], known: Sampled) -> list[SchedulerSpec]:
    """A scheduler's lines: one an eta, if it has that. A scheduler that is not called by a name
    which takes eta is drawn without it, unless etas were asked for."""
    name = _spelled(name, known)
    usual = list(etas) == list(USUAL_ETAS) and not _is_named_with_eta(name)
    taken = etas if _may_have_eta(name, known) and not usual else {0.0: None}
    plain = SchedulerSpec(
        name, 1, prediction_type=known.prediction_type, pipeline=known.pipeline, batch=known.batch,
        libraries=versions(*(TEXT_ARITHMETIC if known.pipeline else ARITHMETIC)),
        resolution=known.resolution,
    )  # fmt: skip
    return [replace(plain, eta=eta) for eta in taken]


def _with_loras(line: Line, choice: SamplerChoice, known: Sampled) -> list[Line]:
    """A line, once for each scale of the LoRA files; those that count for nothing are left out."""
    if isinstance(line, SamplerSpec) or not known.loras:
        return [line]
    scaled = [
        tuple((digest, own * scale) for digest, own in known.loras if own * scale != 0.0)
        for scale in choice.lora_scales
    ]
    laid = (*line.libraries, *versions("peft"))
    return [
        replace(line, loras=loras, libraries=laid) if loras else line
        for loras in dict.fromkeys(scaled)
    ]


def versions(*names: str) -> tuple[tuple[str, str], ...]:
    """Returns libraries with their versions, without the build (`+cpu`): a device counts itself."""
    return tuple((name, version(name).partition("+")[0]) for name in names)


def _spelled(name: str, known: Sampled) -> str:
    """A sampler's one spelling for the checkpoint, where that is known."""
    if known.scheduler is None:
        return name
    from ddim_core.samplers.canonical import canonical  # torch is slow to import

    return canonical(parse_sampler(name), known.scheduler).text


def _is_named_with_eta(name: str) -> bool:
    found = SAMPLERS.get(parse_sampler(name).name)
    return found is not None and found.eta


def _may_have_eta(name: str, known: Sampled) -> bool:
    """Whether a sampler's step takes eta; of `own` that is open until the checkpoint is known."""
    parsed = parse_sampler(name)
    if parsed.name in SAMPLERS or parsed.name == SIGMA_HAT:
        return _is_named_with_eta(name)
    if known.scheduler is None and parsed.name == OWN:
        return False
    from ddim_core.samplers.fits import class_behind
    from ddim_core.samplers.scheduler import takes_eta
    from ddim_core.schedulers.registry import scheduler_class

    return takes_eta(scheduler_class(class_behind(parsed, known.scheduler or {})))
