"""MLflow for LoRAs: a run with curves and files, and a version of the registered model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from ddim_core.common.digest import digest, file_digest
from ddim_core.common.late import late
from ddim_core.lora.specs import LatentSpec, LoraSpec
from tasks.lora.record import LoraRecord
from tasks.lora.train import Training
from tasks.storage import store
from tasks.storage.naming import run_name
from tasks.tracking import database
from tasks.tracking.client import find_experiment, one_at_a_time

if TYPE_CHECKING:
    import mlflow
else:
    mlflow = late("mlflow")

EXPERIMENT, IDENTITY, FILES = "lora", "ddim.identity", "ddim.files"
POINTS_PER_BATCH = 1000  # MLflow takes no more at once


@task(name="track-lora", task_run_name=run_name("track-lora"), retries=2, retry_delay_seconds=2)
def track_lora(record: LoraRecord, spec: LoraSpec, latents: LatentSpec, folder: str) -> str:
    """Logs a LoRA and registers it under its title; returns its run's id.

    Known by its weights and base: logging it again adds neither a run nor a version.
    """
    with one_at_a_time():
        client = database.client()
        experiment = find_experiment(client, EXPERIMENT)
        run = _run(client, experiment, record)
        if run.info.status != "FINISHED":
            _log_parameters(client, run, spec, latents)
            _log_curves(client, run, record.training)
        _log_files(client, run, Path(folder))
        _register(client, run, record)
        if run.info.status != "FINISHED":
            client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def _run(client: mlflow.MlflowClient, experiment: str, record: LoraRecord) -> mlflow.entities.Run:
    found = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{record.name}'")
    if found:
        return found[0]
    tags = {
        IDENTITY: record.name,
        "ddim.data": record.data.artifact,
        "ddim.adapter": record.training.adapter.artifact,
        "ddim.base": record.base_name,
    }
    return client.create_run(experiment, run_name=record.name, tags=tags)


def _log_parameters(
    client: mlflow.MlflowClient, run: mlflow.entities.Run, spec: LoraSpec, latents: LatentSpec
) -> None:
    values = asdict(spec) | {f"latents.{k}": v for k, v in asdict(latents).items()}
    parameters = [
        mlflow.entities.Param(k, str(v)) for k, v in values.items() if k not in run.data.params
    ]
    if parameters:
        client.log_batch(run.info.run_id, params=parameters)


def _log_curves(client: mlflow.MlflowClient, run: mlflow.entities.Run, training: Training) -> None:
    now = mlflow.utils.time.get_current_time_millis()
    points = [
        mlflow.entities.Metric(name, float(value), now, step)
        for name, values in store.get_arrays(training.losses).items()
        for step, value in enumerate(values, 1)
    ]
    points.append(mlflow.entities.Metric("total_seconds", training.seconds, now, 0))
    points.append(
        mlflow.entities.Metric("total_peak_memory_bytes", float(training.peak_memory_bytes), now, 0)
    )
    for start in range(0, len(points), POINTS_PER_BATCH):
        client.log_batch(run.info.run_id, metrics=points[start : start + POINTS_PER_BATCH])


def _log_files(client: mlflow.MlflowClient, run: mlflow.entities.Run, folder: Path) -> None:
    """Uploads the folder, unless these very files are there."""
    content = digest([[path.name, file_digest(path)] for path in sorted(folder.iterdir())])
    if run.data.tags.get(FILES) != content:
        client.log_artifacts(run.info.run_id, str(folder))
        client.set_tag(run.info.run_id, FILES, content)


def _register(client: mlflow.MlflowClient, run: mlflow.entities.Run, record: LoraRecord) -> None:
    name = f"lora-{record.title}"
    try:
        client.create_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = client.search_model_versions(f"name = '{name}'")
    if not any(version.run_id == run.info.run_id for version in known):
        client.create_model_version(name, source=str(run.info.artifact_uri), run_id=run.info.run_id)
