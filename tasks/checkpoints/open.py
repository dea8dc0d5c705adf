"""A checkpoint's location in, its content in the store and what is known of it out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from prefect import task

from ddim_core.checkpoints.checkpoint import NO_BETAS
from ddim_core.checkpoints.convert import source_digest
from ddim_core.checkpoints.decoder_files import is_one_network
from ddim_core.diffusion.lint import Finding, by_steps, lint
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import GridCell, SamplerSpec, SchedulerSpec, Weights
from ddim_core.pipelines.single_file import is_single_file
from ddim_core.samplers.families import family_of, settled_own
from ddim_core.samplers.lint import lint_scheduler
from ddim_core.samplers.name import parse_sampler
from tasks.checkpoints.addresses import (
    Averaged,
    averaged,
    is_local,
    name_of,
    require_location,
)
from tasks.checkpoints.convert import (
    Reconstructed,
    SingleFile,
    convert_checkpoint,
    files_of,
    reconstruct_average,
    reconstruction_digest,
    single_file_digest,
    unpack_single_file,
)
from tasks.checkpoints.fetch import fetch_checkpoint, fetch_configuration, fetch_decoder
from tasks.checkpoints.identity import first_of_content, weights_of
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.pipelines import (
    is_pipeline,
    pipeline_digest,
    pipeline_in_memory,
    store_pipeline,
)
from tasks.checkpoints.scheduler import scheduler_in, scheduler_of
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
    pipeline: str = ""  # the class of the pipeline whose own call draws other samplers' cells
    is_native: bool = True  # the project's own sampler can draw it
    guide: str = ""  # the name of the checkpoint that guides it
    guide_ref: ArtifactRef | None = None
    asked_resolution: int | None = None  # of its pipeline's call; None for its own


@task(name="open-checkpoint", task_run_name=run_name("open-checkpoint"))
def open_checkpoint(ref: ArtifactRef, name: str, resolution: int | None = None) -> CheckpointRecord:
    """Looks a stored checkpoint over: what it is follows from its content, so nothing is cached.

    Args:
        ref: It.
        name: For people.
        resolution: Height and width in pixels that its images are wanted in; another one than its
            own is drawn by a pipeline's own call alone.

    Raises:
        ValueError: If it draws no such size.
    """
    record = _as_it_is(ref, name)
    if resolution in (None, record.resolution):
        return record
    if not record.pipeline:
        raise ValueError(
            f"resolution is {resolution}, and the checkpoint makes images of {record.resolution} "
            "pixels; leave it out"
        )
    notes = pipeline_in_memory(ref, resolution=resolution).notes
    return replace(
        record, resolution=resolution, asked_resolution=resolution, is_native=False,
        assumed=record.assumed if record.is_native else list(notes),
    )  # fmt: skip


def _as_it_is(ref: ArtifactRef, name: str) -> CheckpointRecord:
    if is_pipeline(store.get_folder(ref)):
        return _pipeline_record(ref, name)
    loaded = checkpoint_in_memory(ref)
    pipeline = pipeline_in_memory(ref).name if loaded.prompts else ""
    return CheckpointRecord(
        ref=ref,
        weights_digest=weights_of(ref),
        name=name,
        resolution=loaded.resolution,
        channels=loaded.channels,
        n_train=len(loaded.schedule.alpha_bar) if loaded.schedule else _n_train(ref),
        prediction_type=loaded.prediction_type,
        training_step=loaded.training_step,
        n_classes=loaded.n_classes,
        null_label=loaded.null_label,
        is_latent=loaded.latent is not None,
        with_prompts=loaded.prompts is not None,
        weights=loaded.weights,
        assumed=list(loaded.assumed),
        pipeline=pipeline,
        is_native=loaded.schedule is not None,
    )


def _n_train(ref: ArtifactRef) -> int:
    """T of a checkpoint without a schedule, as its scheduler counts timesteps."""
    return int(settled_own(scheduler_of(ref) or {}).get("num_train_timesteps", 1000))


def require_native(record: CheckpointRecord) -> None:
    """Makes sure that the project's own sampler can draw a checkpoint.

    Raises:
        ValueError: If it cannot.
    """
    if not record.is_native:
        raise ValueError(NO_BETAS)


def _pipeline_record(ref: ArtifactRef, name: str) -> CheckpointRecord:
    """Of a pipeline that is drawn by its own call alone."""
    opened = pipeline_in_memory(ref)
    if opened.height != opened.width:
        raise ValueError(
            f"{name} draws {opened.height} x {opened.width} pixels; only squares are scored"
        )
    own = settled_own(opened.scheduler)
    flow = family_of(opened.scheduler) == "flow"
    return CheckpointRecord(
        ref=ref,
        weights_digest=weights_of(ref),
        name=name,
        resolution=opened.height,
        channels=opened.channels,
        n_train=int(own.get("num_train_timesteps", 1000)),
        prediction_type="flow_prediction" if flow else own.get("prediction_type", "epsilon"),
        training_step=None,
        n_classes=opened.n_classes,
        # The call itself leaves the class out where it guides.
        null_label=opened.n_classes if opened.takes.guidance == "real" else None,
        is_latent=True,
        with_prompts=opened.takes.modality == "text-to-image",
        weights=None,
        assumed=list(opened.notes),
        pipeline=opened.name,
        is_native=False,
    )


def import_checkpoint(
    location: str, weights: Weights = "ema", configuration: str = ""
) -> ArtifactRef:
    """Brings a checkpoint of any known form into the store, converted once per content.

    Args:
        location: A folder or file, a hub id, or an MLflow address; an alias of MLflow is looked
            up each time.
        weights: `ema` takes the moving average where there are both, `raw` the others.
        configuration: For a single file of Stable Diffusion a pipeline's folder or hub id; for one
            of a network of latents that of its autoencoder.

    Raises:
        ValueError: If it is not there, is damaged, asks to run code, or is of no known form.
        ConnectionError: If the hub or MLflow does not answer.
    """
    require_location(location)
    if not is_local(location) and (of := averaged(location)):
        return _averaged(of, configuration)
    if configuration and is_one_network(Path(location)):
        with tempfile.TemporaryDirectory() as place:
            decoder = fetch_decoder(configuration, Path(place, name_of(configuration)))
            return _converted(SingleFile(location, str(decoder)), weights)
    if configuration:
        return _unpacked(location, weights, configuration)
    if is_single_file(Path(location)):
        raise ValueError(
            f"{name_of(location)} is a single file of Stable Diffusion, which does not say how its "
            "networks are built; give, as --configuration, the folder or hub id of a pipeline of "
            "its kind, such as the one that it was trained from"
        )
    if is_local(location):
        return _converted(location, weights)
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder, name_of(location))
        return _converted(fetch_checkpoint(location, str(inside)), weights)


def _averaged(of: Averaged, configuration: str) -> ArtifactRef:
    with tempfile.TemporaryDirectory() as place:
        decoder = configuration and fetch_decoder(configuration, Path(place, "vae"))
        found = Reconstructed(of, str(decoder))
        return first_of_content(reconstruct_average(reconstruction_digest(found), location=found))


def _unpacked(location: str, weights: Weights, configuration: str) -> ArtifactRef:
    with tempfile.TemporaryDirectory() as place:
        folder = fetch_configuration(configuration, Path(place, name_of(configuration)))
        single = SingleFile(location, str(folder))
        found = single_file_digest(single)
        return first_of_content(unpack_single_file(found, weights, location=single))


def _converted(place: str | SingleFile, weights: Weights) -> ArtifactRef:
    if isinstance(place, str) and is_pipeline(Path(place)):
        found = pipeline_digest(Path(place))
        return first_of_content(store_pipeline(found, location=place))
    source = source_digest(files_of(place))
    return first_of_content(convert_checkpoint(source, weights, location=place))


@task(name="lint-schedule", task_run_name=run_name("lint-schedule"))
def lint_schedule(checkpoint: ArtifactRef, cells: list[GridCell]) -> list[str]:
    """Says, once each, where what is done differs from what was asked for or from a peer's."""
    config = scheduler_of(checkpoint)
    found: list[tuple[SamplerSpec | SchedulerSpec, list[Finding]]] = []
    for cell in cells:
        asked = cell.sampler
        if isinstance(asked, SamplerSpec):
            own = checkpoint_in_memory(checkpoint).require_schedule()
            schedule = NoiseSchedule.from_spec(cell.noise) if cell.noise else own
            found.append((asked, lint(schedule, asked, config)))
        else:
            name, came_with = parse_sampler(asked.sampler), scheduler_in(cell, checkpoint)
            found.append((asked, lint_scheduler(name, came_with, asked.steps)))
    return by_steps(found)
