"""A checkpoint's folder in, its content in the store and what is known of it out."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from prefect import task

from ddim_core.checkpoint import load_checkpoint
from ddim_core.schedule_lint import lint
from ddim_core.specs import GridCell
from tasks import store
from tasks.content import first_of_content, weights_of
from tasks.models import checkpoint_in_memory
from tasks.store import ArtifactRef


class CheckpointRecord(TypedDict):
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


@task(name="open-checkpoint")
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
    )


@task(name="import-checkpoint")
def import_checkpoint(location: str) -> ArtifactRef:
    """Copies a checkpoint folder into the store, once per content."""
    load_checkpoint(Path(location))  # refuses what is no checkpoint before anything is copied
    return first_of_content(store.put_folder(Path(location)))


@task(name="lint-schedule")
def lint_schedule(checkpoint: ArtifactRef, cells: list[GridCell]) -> list[str]:
    """Says, once each, where the steps taken differ from those asked for or from a peer's."""
    schedule = checkpoint_in_memory(checkpoint).schedule
    found = {
        f"S = {cell.sampler.steps}: {finding.message}": None
        for cell in cells
        for finding in lint(schedule, cell.sampler)
    }
    return list(found)
