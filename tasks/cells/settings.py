"""What was done in a cell, as its row says it: the sampler, what it was set to, where it went."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddim_core.common.foreign import Config
from ddim_core.decisions.row import DDIM, SIGMA_HAT
from ddim_core.diffusion.schedule import timesteps
from ddim_core.diffusion.specs import GridCell, SamplerSpec, SchedulerSpec
from ddim_core.pipelines.fitting import where_it_asks
from ddim_core.samplers.catalogue import class_entries
from ddim_core.samplers.families import levels_of
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import (
    Visited,
    config_of,
    learns_variance,
    scheduler_for,
    set_steps,
)
from ddim_core.samplers.trial import require_steps
from tasks.checkpoints.loras import StoredLora
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.checkpoints.scheduler import departing, scheduler_in
from tasks.sampling.guidance import further_calls, guided_where
from tasks.sampling.pipeline import Laid, by_pipeline, setting_of
from tasks.storage.artifact import ArtifactRef


@dataclass(frozen=True)
class Settings:
    """Columns of a row, by their names (`ddim_core.decisions.row`)."""

    sampler: str
    scheduler_config: str
    pipeline: str
    eta: float
    variance: str
    spacing: str
    clip: bool
    timesteps: list[int]
    sigmas: list[float] | None = None
    loras: str | None = None


def settings_of(
    cell: GridCell,
    n_train: int,
    checkpoint: ArtifactRef | None,
    loras: Sequence[StoredLora] = (),
) -> Settings:
    """Returns what a row says of its cell's sampler.

    Args:
        cell: The cell.
        n_train: T of its checkpoint.
        checkpoint: It, in the store; None for the toy model before it is trained.
        loras: The LoRA files over it, for their names.

    Raises:
        ValueError: If the sampler does not fit the checkpoint, or cannot take so many steps.
    """
    asked = cell.sampler
    if isinstance(asked, SamplerSpec):
        return Settings(
            sampler=SIGMA_HAT if asked.variance == "sigma_hat" else DDIM,
            scheduler_config="",
            pipeline="",
            eta=asked.eta,
            variance=asked.variance,
            spacing=asked.spacing,
            clip=asked.clip,
            timesteps=timesteps(n_train, asked.steps, asked.spacing, asked.steps_offset),
        )
    scheduler, done = _trial(cell, checkpoint)
    config = config_of(scheduler)
    return Settings(
        sampler=asked.sampler,
        scheduler_config=json.dumps(_plain(config), sort_keys=True, allow_nan=False),
        pipeline=asked.pipeline,
        eta=asked.eta,
        variance="scheduler",
        spacing=str(config.get("timestep_spacing", "own")),
        clip=bool(config.get("clip_sample", False)),
        timesteps=[round(t) for t in done.timesteps],
        sigmas=list(done.sigmas),
        loras=_named(asked.loras, loras) if asked.loras else None,
    )


def _plain(config: Mapping[str, Any]) -> Config:
    """A scheduler's configuration as JSON that any program reads and its `from_config` takes:
    without what diffusers notes for itself, and without what is endless as in its class itself."""
    usual = class_entries(config["_class_name"])
    return {
        name: str(value) if is_endless else value
        for name, value in config.items()
        if (not name.startswith("_") or name == "_class_name")
        and not ((is_endless := _is_endless(value)) and value == usual.get(name))
    }


def _is_endless(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _named(laid: Laid, loras: Sequence[StoredLora]) -> str:
    """LoRA files as JSON: of each its name, its digest, and how much of it counts."""
    names = {lora.artifact: lora.name for lora in loras}
    return json.dumps([[names.get(digest, ""), digest, scale] for digest, scale in laid])


def _trial(cell: GridCell, checkpoint: ArtifactRef | None) -> tuple[Any, Visited]:
    """The scheduler of a cell, and where it will ask the network, tried without it."""
    asked = cell.sampler
    assert isinstance(asked, SchedulerSpec)
    if asked.pipeline and checkpoint is not None:
        opened = pipeline_in_memory(checkpoint, resolution=asked.resolution)
        setting = setting_of(cell)
        require_steps(setting.sampler, opened.scheduler, asked.steps)
        done = where_it_asks(opened, setting)
        return scheduler_for(setting.sampler, opened.scheduler), done
    name, own = parse_sampler(asked.sampler), scheduler_in(cell, checkpoint)
    require_steps(name, own, asked.steps)
    scheduler = scheduler_for(name, own)
    return scheduler, set_steps(scheduler, name, asked.steps)


def calls_of(cell: GridCell, n_train: int, checkpoint: ArtifactRef) -> int:
    """Returns the network calls an image that a cell will take: guidance asks twice, with the class
    and without, but where the network itself is told of it."""
    if by_pipeline(cell) and pipeline_in_memory(checkpoint).takes.guidance != "real":
        return len(settings_of(cell, n_train, checkpoint).timesteps)
    asked = _asked(cell, n_train, checkpoint)
    return len(asked) + further_calls(asked, cell.sampler, guided_where(cell, checkpoint))


def _asked(cell: GridCell, n_train: int, checkpoint: ArtifactRef | None) -> Sequence[float]:
    """The timesteps that a cell's network is asked at."""
    if isinstance(cell.sampler, SchedulerSpec):  # of an EDM a row's rounded ones tell little
        return _trial(cell, checkpoint)[1].timesteps
    return settings_of(cell, n_train, checkpoint).timesteps


def require_fit(cells: Sequence[GridCell], n_train: int, checkpoint: ArtifactRef | None) -> None:
    """Makes sure that a checkpoint can be sampled by every cell, before anything is drawn.

    Raises:
        ValueError: As `settings_of` or `guided_where`, for the first that it cannot; or if it has
            no more channels than are to be guided, or is guided at none of its noise levels.
    """
    for cell in cells:
        settings_of(cell, n_train, checkpoint)
        _require_guided_somewhere(cell, n_train, checkpoint)
        _require_channels(cell, checkpoint)
        _require_variance(cell, checkpoint)


def require_samplers(cells: Sequence[GridCell], own: Mapping[str, Any]) -> None:
    """The same of schedulers alone, before the checkpoint is opened.

    Args:
        cells: They.
        own: Its scheduler_config.json, with the class.

    Raises:
        ValueError: For the first sampler that does not fit, or cannot take so many steps.
    """
    for cell in cells:
        asked = cell.sampler
        if isinstance(asked, SchedulerSpec):
            config = own if asked.pipeline else departing(own, cell)
            require_steps(parse_sampler(asked.sampler), config, asked.steps)


def _require_guided_somewhere(cell: GridCell, n_train: int, checkpoint: ArtifactRef | None) -> None:
    inside, interval = guided_where(cell, checkpoint), cell.sampler.guidance_interval
    if inside is None or interval is None:
        return
    asked = _asked(cell, n_train, checkpoint)
    if not any(map(inside, asked)):
        levels = [levels_of(scheduler_in(cell, checkpoint))(t) for t in asked]
        raise ValueError(
            f"guidance_interval is {interval[0]:g},{interval[1]:g}, and holds none of the noise "
            f"levels of {cell.sampler.line} with {cell.sampler.steps} steps, from "
            f"{min(levels):.3g} to {max(levels):.3g}; give one that holds some, or guidance 1"
        )


def _require_variance(cell: GridCell, checkpoint: ArtifactRef | None) -> None:
    """Makes sure that a guide that draws alone says what the sampler takes of a variance."""
    asked = cell.sampler
    if not asked.guide or asked.guidance_scale != 0.0 or asked.guidance_channels is not None:
        return
    if not (isinstance(asked, SchedulerSpec) and learns_variance(_trial(cell, checkpoint)[0])):
        return
    config = checkpoint_in_memory(ArtifactRef(asked.guide, "folder")).model.unet.config
    if config["out_channels"] == config["in_channels"]:
        raise ValueError(
            f"guidance is 0, where the guide alone draws, and {asked.line} takes a variance of the "
            "network, which the guide has not learned; leave 0 out, or take ddim"
        )


def _require_channels(cell: GridCell, checkpoint: ArtifactRef | None) -> None:
    n_guided = cell.sampler.guidance_channels
    if n_guided is None or checkpoint is None:
        return
    n_channels = checkpoint_in_memory(checkpoint).noise_shape[0]
    if n_guided >= n_channels:
        raise ValueError(
            f"guidance_channels is {n_guided}, and the network draws {n_channels}; give fewer, or "
            "leave it out, which guides all"
        )
