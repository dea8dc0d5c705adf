"""A checkpoint's location in, its content in the store and what is known of it out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import task

from ddim_core.checkpoints.checkpoint import scheduler_config
from ddim_core.checkpoints.convert import source_digest, source_files
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.lint import by_steps, lint
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import GridCell, Weights
from tasks.checkpoints.addresses import is_local, name_of, require_location
from tasks.checkpoints.convert import convert_checkpoint
from tasks.checkpoints.fetch import fetch_checkpoint
from tasks.checkpoints.identity import first_of_content, weights_of
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.storage import store
from tasks.storage.naming import run_name
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint in the store, and what the grid needs to know of it."""

    ref: ArtifactRef
    weights_digest: str
    name: str
    resolution: int
    channels: int
    n_train: int
    prediction_type: str
    training_step: int | None
    n_classes: int | None
    null_label: int | None
    is_latent: bool
    with_prompts: bool
    weights: str | None
    assumed: list[str]


@task(name="open-checkpoint", task_run_name=run_name("open-checkpoint"))
def open_checkpoint(ref: ArtifactRef, name: str) -> CheckpointRecord:
    """Looks a stored checkpoint over: what it is follows from its content, so nothing is cached."""
    loaded = checkpoint_in_memory(ref)
    return CheckpointRecord(
        ref=ref,
        weights_digest=weights_of(ref),
        name=name,
        resolution=loaded.resolution,
        channels=loaded.channels,
        n_train=len(loaded.schedule.alpha_bar),
        prediction_type=loaded.prediction_type,
        training_step=loaded.training_step,
        n_classes=loaded.n_classes,
        null_label=loaded.null_label,
        is_latent=loaded.latent is not None,
        with_prompts=loaded.prompts is not None,
        weights=loaded.weights,
        assumed=list(loaded.assumed),
    )


def import_checkpoint(location: str, weights: Weights = "ema") -> ArtifactRef:
    """Brings a checkpoint of any known form into the store, converted once per content.

    Args:
        location: A folder or file, a hub id, or an MLflow address; an alias of MLflow is looked
            up each time.
        weights: `ema` takes the moving average where there are both, `raw` the others.

    Raises:
        ValueError: If it is not there, is damaged, asks to run code, or is of no known form.
        ConnectionError: If the hub or MLflow does not answer.
    """
    require_location(location)
    if is_local(location):
        return _converted(location, weights)
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder, name_of(location))
        return _converted(fetch_checkpoint(location, str(inside)), weights)


def _converted(place: str, weights: Weights) -> ArtifactRef:
    source = source_digest(source_files(Path(place)))
    return first_of_content(convert_checkpoint(source, weights, location=place))


@task(name="lint-schedule", task_run_name=run_name("lint-schedule"))
def lint_schedule(checkpoint: ArtifactRef, cells: list[GridCell]) -> list[str]:
    """Says, once each, where what is done differs from what was asked for or from a peer's."""
    own, config = checkpoint_in_memory(checkpoint).schedule, _scheduler_config(checkpoint)
    found = []
    for cell in cells:
        schedule = NoiseSchedule.from_spec(cell.noise) if cell.noise else own
        found.append((cell.sampler, lint(schedule, cell.sampler, config)))
    return by_steps(found)


def _scheduler_config(checkpoint: ArtifactRef) -> dict[str, Any] | None:
    """What diffusers would sample with; None where the checkpoint came without it."""
    folder = store.get_folder(checkpoint)
    there = is_there(folder / "scheduler" / "scheduler_config.json")
    return scheduler_config(folder) if there else None
