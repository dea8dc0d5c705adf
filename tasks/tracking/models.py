"""Checkpoints in MLflow: registered models and runs' artefacts in, verdicts and aliases out.

An address is `models:/NAME/VERSION`, `models:/NAME@ALIAS`, or `runs:/RUN/PATH`, as MLflow has them.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task

from ddim_core.common.digest import digest
from ddim_core.common.late import late
from ddim_core.common.redaction import redacted
from tasks.machine.secrets import without_secrets
from tasks.storage import places
from tasks.storage.naming import run_name
from tasks.tracking import artifacts, database
from tasks.tracking.client import GRIDS, find_experiment, known_runs

if TYPE_CHECKING:
    import mlflow
else:
    mlflow = late("mlflow")

CHAMPION = "champion"
WEIGHTS_TAG = "ddim.weights"
FOLDER = "checkpoint"
NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def model_versions(name: str) -> list[str]:
    """Returns the addresses of a registered model's versions, oldest first.

    Raises:
        ValueError: If there is no such model.
    """
    client = database.client()
    try:
        client.get_registered_model(name)
    except mlflow.exceptions.MlflowException as error:
        told = redacted(str(error))
        raise ValueError(f"there is no registered model {name!r} in MLflow: {told}") from None
    found = client.search_model_versions(f"name = '{_quotable(name)}'")
    return [f"models:/{name}/{v}" for v in sorted(int(version.version) for version in found)]


def run_checkpoints(experiment: str, path: str) -> list[str]:
    """Returns the addresses of an artefact folder in an experiment's finished runs, oldest first.

    Raises:
        ValueError: If there is no such experiment.
    """
    client = database.client()
    found = client.get_experiment_by_name(experiment)
    if found is None:
        raise ValueError(f"there is no experiment {experiment!r} in MLflow")
    addresses: list[str] = []
    token = None
    while True:
        page = client.search_runs(
            [found.experiment_id], "attributes.status = 'FINISHED'",
            order_by=["attributes.start_time ASC"], max_results=1000, page_token=token,
        )  # fmt: skip
        for run in page:
            if client.list_artifacts(run.info.run_id, path):
                addresses.append(f"runs:/{run.info.run_id}/{path}")
        token = page.token
        if not token:
            return addresses


def resolved(address: str) -> str:
    """Turns `models:/NAME@ALIAS` into the version that it means now; others stay as they are.

    Raises:
        ValueError: If the model or the alias is not there.
    """
    name, at, alias = address.removeprefix("models:/").partition("@")
    if not address.startswith("models:/") or not at:
        return address
    try:
        version = database.client().get_model_version_by_alias(name, alias)
    except mlflow.exceptions.MlflowException as error:
        told = redacted(str(error))
        raise ValueError(f"there is no {address} in MLflow: {told}") from None
    return f"models:/{name}/{version.version}"


def download(address: str) -> Path:
    """Brings a version's or a run's artefacts to this machine, once, and returns their folder.

    Raises:
        ValueError: If MLflow does not have them.
    """
    fixed = resolved(address)
    where = fixed.split(":/", 1)[1].strip("/")
    folder = places.local_dir("fetched", f"{where.replace('/', '-')}-{digest(fixed)[:8]}")
    if not folder.is_dir():
        draft = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
        try:
            artifacts.download(fixed, draft)
        except (ValueError, ConnectionError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise ValueError(str(error)) from None
        inside = [path for path in draft.iterdir() if not path.name.startswith(".")]
        whole = inside[0] if len(inside) == 1 and inside[0].is_dir() else draft
        if not folder.is_dir():  # another process may have been as quick
            whole.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def champion(name: str) -> str | None:
    """Returns the address of a registered model's champion; None if it has none yet.

    Raises:
        MlflowException: If MLflow cannot be reached.
    """
    try:
        version = database.client().get_model_version_by_alias(name, CHAMPION)
    except mlflow.exceptions.MlflowException as error:
        if error.error_code in NOT_THERE:
            return None
        raise
    return f"models:/{name}/{version.version}"


@task(
    name="track-verdict", task_run_name=run_name("track-verdict"), retries=2, retry_delay_seconds=2
)
@without_secrets
def track_verdict(grid: str, tags: dict[str, str], difference: float | None) -> str | None:
    """Writes a verdict into the tags of its grid's parent run; returns the run's id."""
    client = database.client()
    run = known_runs(client, find_experiment(client, GRIDS), grid).get(grid)
    if run is None:
        return None
    run_id = str(run.info.run_id)
    client.log_batch(run_id, tags=[mlflow.entities.RunTag(f"ddim.{k}", v) for k, v in tags.items()])
    if difference is not None and run.data.metrics.get("verdict_difference") != difference:
        client.log_metric(run_id, "verdict_difference", difference)
    return run_id


@task(name="promote", task_run_name=run_name("promote"), retries=2, retry_delay_seconds=2)
@without_secrets
def promote(name: str, folder: str, weights: str, run_id: str | None, call: str) -> str:
    """Makes a checkpoint the champion of a registered model; returns its address.

    A version with these weights is used again; else its files become artefacts of the grid's run,
    and a new version of the model.
    """
    client = database.client()
    try:
        client.get_registered_model(name)
    except mlflow.exceptions.MlflowException:
        client.create_registered_model(name)
    versions = client.search_model_versions(f"name = '{_quotable(name)}'")
    known = [v.version for v in versions if v.tags.get(WEIGHTS_TAG) == weights]
    version = known[-1] if known else _registered(client, name, folder, weights, run_id)
    client.set_model_version_tag(name, version, "ddim.verdict", call)
    client.set_registered_model_alias(name, CHAMPION, version)
    return f"models:/{name}/{version}"


def _registered(
    client: mlflow.MlflowClient, name: str, folder: str, weights: str, run_id: str | None
) -> str:
    run = (
        run_id
        or client.create_run(
            find_experiment(client, GRIDS), run_name=f"{name} champion"
        ).info.run_id
    )
    client.log_artifacts(run, folder, FOLDER)
    from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

    source = RunsArtifactRepository.get_underlying_uri(f"runs:/{run}/{FOLDER}")
    made: Any = client.create_model_version(name, source, run, tags={WEIGHTS_TAG: weights})
    if run_id is None:
        client.set_terminated(run)
    return str(made.version)


def _quotable(name: str) -> str:
    if "'" in name:
        raise ValueError(
            f"the model's name {name!r} has a quote in it; MLflow cannot search for it"
        )
    return name
