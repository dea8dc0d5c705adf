"""MLflow: one parent run per grid, one child run per cell; the only file that imports mlflow.

Written from records and never read back to decide anything but what is there already. Runs are
found by digests in their tags, so that logging a grid again updates its runs and adds none.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.time import get_current_time_millis
from prefect import task

from ddim_core.reading import cell_name
from ddim_core.redaction import redacted
from tasks import places, store
from tasks.secrets import without_secrets

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes

GRIDS, POINTS = "fid-grid", "swiss-roll"
METRICS = (
    "fid", "fid_low", "fid_high", "fid_inf", "fid_inf_low", "fid_inf_high", "kid", "kid_std",
    "precision", "recall", "class_accuracy", "nfe", "sample_seconds", "images_per_second",
)  # fmt: skip
PARAMETERS = (
    "steps", "eta", "variance", "spacing", "prediction_type", "noise_schedule", "overrides", "clip",
    "guidance_scale", "prompts_digest", "seed",
    "n_images", "n_reference", "shard_size", "resolution", "checkpoint", "training_step",
    "weights", "dataset", "split", "extractor", "resize", "dtype",
)  # fmt: skip
SHARED = ("checkpoint", "training_step", "dataset", "split", "extractor", "resize", "resolution",
          "spacing", "seed", "n_images", "n_reference", "shard_size")  # fmt: skip


@task(name="track-grid", retries=2, retry_delay_seconds=2)
@without_secrets
def track_grid(
    grid: str, rows: list[dict[str, Any]], report: dict[str, Any], complete: bool = True
) -> str:
    """Logs a grid's rows, figures and report; returns the id of its parent run.

    A grid of which cells failed is logged under the same identity, as failed, until it is whole.

    One process at a time: creating the database, and finding or making a run, are not atomic.
    """
    lock = places.local_dir("work", "mlflow.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        client = MlflowClient()
        experiment = _experiment(client, GRIDS)
        known = _known_runs(client, experiment, grid)
        parent = known.get(grid) or _create(client, experiment, grid, grid, None, rows[0])
        best = min(rows, key=lambda row: row["fid"])
        _log(client, parent, {k: rows[0][k] for k in SHARED}, _metrics(best, "best_"))
        for row in rows:
            run = known.get(row["cell_digest"])
            if run is None:
                cell = row["cell_digest"]
                run = _create(client, experiment, grid, cell, parent.info.run_id, row)
            _log(client, run, {k: row[k] for k in PARAMETERS}, _metrics(row))
            if run.data.tags.get("ddim.code") != row["code_digest"]:
                client.set_tag(run.info.run_id, "ddim.code", row["code_digest"])
            _finish(client, run)
        _log_report(client, parent, report)
        _finish(client, parent, "FINISHED" if complete else "FAILED")
    return str(parent.info.run_id)


def how_to_open() -> str:
    """Returns the command that shows the runs."""
    uri = redacted(os.environ["MLFLOW_TRACKING_URI"])
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    local = not os.environ["MLFLOW_TRACKING_URI"].startswith("http")
    artifacts = places.local_dir("mlartifacts").as_uri() if local else None
    # Without a kind MLflow's UI opens on its pages for language models, not on the runs.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=artifacts, tags=kind))


def _known_runs(client: MlflowClient, experiment: str, grid: str) -> dict[str, Run]:
    """The grid's runs so far, by the digest of what each one logs."""
    known: dict[str, Run] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment], f"tags.`ddim.grid` = '{grid}'", max_results=1000, page_token=token
        )
        known.update({run.data.tags["ddim.identity"]: run for run in page})
        token = page.token
        if not token:
            return known


def _create(
    client: MlflowClient, experiment: str, grid: str, identity: str, parent: str | None,
    row: dict[str, Any],
) -> Run:  # fmt: skip
    tags = {
        "ddim.grid": grid,
        "ddim.identity": identity,
        "ddim.checkpoint": row["checkpoint_digest"],
        "ddim.reference": row["reference_digest"],
        "ddim.code": row["code_digest"],
    }
    name = f"grid {row['checkpoint']} {grid[:8]}"
    if parent:
        tags |= {"mlflow.parentRunId": parent}
        name = cell_name(row)
    return client.create_run(experiment, run_name=name, tags=tags)


def _metrics(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    return {f"{prefix}{k}": float(row[k]) for k in METRICS if row[k] is not None}


def _log(
    client: MlflowClient, run: Run, parameters: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Logs what the run does not say yet, in one batch."""
    new_parameters = [Param(k, str(v)) for k, v in parameters.items() if k not in run.data.params]
    now = get_current_time_millis()
    changed = [Metric(k, v, now, 0) for k, v in metrics.items() if run.data.metrics.get(k) != v]
    if new_parameters or changed:
        client.log_batch(run.info.run_id, metrics=changed, params=new_parameters)


def _log_report(client: MlflowClient, parent: Run, report: dict[str, Any]) -> None:
    page = report["page"]["artifact"]
    if parent.data.tags.get("ddim.report") == page:
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "report.html").write_bytes(store.get(report["page"]))
        for name, ref in report["figures"].items():
            Path(folder, f"{name}.png").write_bytes(store.get(ref))
        client.log_artifacts(parent.info.run_id, folder)
    client.log_batch(
        parent.info.run_id,
        tags=[
            RunTag("ddim.report", page),
            RunTag("mlflow.note.content", "\n\n".join(report["reading"])),
        ],
    )


def _finish(client: MlflowClient, run: Run, status: str = "FINISHED") -> None:
    if run.info.status != status:
        client.set_terminated(run.info.run_id, status)


@task(name="track-points", retries=2, retry_delay_seconds=2)
@without_secrets
def track_points(name: str, rows: list[dict[str, Any]], report: dict[str, Any]) -> str:
    """Logs a run of the points flow like a grid, in its own experiment; returns its run's id."""
    shared = ("dataset", "spacing", "n_points", "training_steps")
    own = (*shared, "steps", "eta", "variance", "training_seed")
    metrics = ("chamfer", "chamfer_low", "chamfer_high", "floor", "nfe", "sample_seconds",
               "training_seconds")  # fmt: skip
    lock = places.local_dir("work", "mlflow.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        client = MlflowClient()
        experiment = _experiment(client, POINTS)
        known = _known_runs(client, experiment, name)
        named = [
            row | {"checkpoint": row["dataset"], "checkpoint_digest": row["model_digest"],
                   "reference_digest": row["dataset"]}
            for row in rows
        ]  # fmt: skip
        parent = known.get(name) or _create(client, experiment, name, name, None, named[0])
        best = min(rows, key=lambda row: row["chamfer"])
        best_score = {f"best_{k}": best[k] for k in metrics if best[k] is not None}
        _log(client, parent, {k: rows[0][k] for k in shared}, best_score)
        for row in named:
            run = known.get(row["cell_digest"]) or _create(
                client, experiment, name, row["cell_digest"], parent.info.run_id, row
            )
            score = {k: float(row[k]) for k in metrics if row[k] is not None}
            _log(client, run, {k: row[k] for k in own}, score)
            _finish(client, run)
        _log_report(client, parent, report)
        _finish(client, parent)
    return str(parent.info.run_id)


@task(name="track-paper", retries=2, retry_delay_seconds=2)
@without_secrets
def track_paper(
    name: str,
    rows: list[dict[str, Any]],
    reconstructions: list[dict[str, Any]],
    report: dict[str, Any],
) -> str:
    """Logs a run of the paper's experiments, its figures and its report; returns its run's id.

    The grid's cells have runs of their own, of `track_grid`.
    """
    metrics = {
        f"reconstruction_{key}_S{record['steps']}": float(record[key])
        for record in reconstructions
        for key in ("mse", "mse_low", "mse_high")
        if record[key] is not None
    }
    best = min(rows, key=lambda row: row["fid"])
    lock = places.local_dir("work", "mlflow.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        client = MlflowClient()
        experiment = _experiment(client, "paper")
        known = _known_runs(client, experiment, name)
        run = known.get(name) or _create(client, experiment, name, name, None, rows[0])
        parameters = {k: rows[0][k] for k in SHARED} | {"n_reconstructed": reconstructions[0]["n"]}
        _log(client, run, parameters, metrics | _metrics(best, "best_"))
        _log_report(client, run, report)
        _finish(client, run)
    return str(run.info.run_id)
