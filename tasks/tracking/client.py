"""MLflow: one parent run per grid, one child run per cell.

Written from records and never read back to decide anything but what is there already. Runs are
found by digests in their tags, so that logging a grid again updates its runs and adds none. What
is to be logged lies in the outbox until it has arrived.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from filelock import FileLock
from PIL import Image
from prefect import task

from ddim_core.common.late import late
from ddim_core.common.redaction import redacted
from ddim_core.decisions.measure import FID, measure_of
from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.diffusion.reconstruction import MeanError
from ddim_core.points.row import PointRow
from ddim_core.safe_files.contained import require_plain_name
from tasks.machine.secrets import without_secrets
from tasks.points import table as points
from tasks.storage import cell_rows, places, store
from tasks.storage.artifact import Report
from tasks.storage.columns import names_of
from tasks.storage.naming import run_name
from tasks.storage.previews import CELL_DIGITS, PREVIEW_OF
from tasks.tracking import database, outbox
from tasks.tracking.outbox import Entry, Message

if TYPE_CHECKING:
    import mlflow
else:
    mlflow = late("mlflow")

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table it makes

GRIDS, POINTS, PAPER = "fid-grid", "swiss-roll", "paper"
METRICS = names_of(cell_rows.COLUMNS, "metric")
SHARED = names_of(cell_rows.COLUMNS, "shared")
PARAMETERS = names_of(cell_rows.COLUMNS, "shared", "parameter")
POINT_METRICS = names_of(points.COLUMNS, "metric")
POINT_SHARED = names_of(points.COLUMNS, "shared")
POINT_PARAMETERS = names_of(points.COLUMNS, "shared", "parameter")


@task(name="track-grid", task_run_name=run_name("track-grid"), retries=2, retry_delay_seconds=2)
@without_secrets
def track_grid(
    grid: str,
    rows: list[CellRow],
    report: Report,
    complete: bool = True,
    decide_by: str = FID.name,
    best: CellRow | None = None,
) -> str:
    """Logs a grid's rows, figures and report; returns the id of its parent run, whose metrics are
    those of the cell that is best: by the measure that decides, if it is not given.

    A grid of which cells failed is logged under the same identity, as failed, until it is whole.
    """
    first = best or rows[0]
    best = best or min(rows, key=measure_of(decide_by).cost)
    n_checkpoints = len({row.checkpoint_digest for row in rows})
    more = f" and {n_checkpoints - 1} more" if n_checkpoints > 1 else ""
    title = _grid_name(f"{first.checkpoint}{more}", grid)
    parent = _entry(grid, title, _cell_tags(first), first, SHARED, _metrics(best, METRICS, "best_"))
    return track(GRIDS, parent, [cell_entry(row, grid) for row in rows], report, complete)


@task(name="track-points", task_run_name=run_name("track-points"), retries=2, retry_delay_seconds=2)
@without_secrets
def track_points(name: str, rows: list[PointRow], report: Report) -> str:
    """Logs a run of the points flow like a grid, in its own experiment; returns its run's id."""
    best = min(rows, key=lambda row: row.chamfer)
    first = rows[0]
    parent = _entry(
        name, _grid_name(first.dataset, name), _point_tags(first), first, POINT_SHARED,
        _metrics(best, POINT_METRICS, "best_"),
    )  # fmt: skip
    return track(POINTS, parent, [_point_entry(row, name) for row in rows], report)


@task(name="track-paper", task_run_name=run_name("track-paper"), retries=2, retry_delay_seconds=2)
@without_secrets
def track_paper(
    name: str,
    rows: list[CellRow],
    errors: Mapping[int, MeanError],
    n_reconstructed: int,
    report: Report,
    complete: bool = True,
) -> str:
    """Logs a run of the paper's experiments, its figures and its report; returns its run's id.

    The grid's cells have runs of their own, of `track_grid`; `errors` are by S.
    """
    metrics = {
        f"reconstruction_{key}_S{steps}": float(value)
        for steps, error in errors.items()
        for key, value in (("mse", error.mean), ("mse_low", error.low), ("mse_high", error.high))
        if value is not None
    }
    best, first = min(rows, key=lambda row: row.fid), rows[0]
    parent = _entry(
        name, f"paper {first.checkpoint} {name[:8]}", _cell_tags(first), first,
        SHARED, metrics | _metrics(best, METRICS, "best_"),
    )  # fmt: skip
    parent.parameters["n_reconstructed"] = n_reconstructed
    return track(PAPER, parent, [], report, complete)


@task(name="track-resend", task_run_name=run_name("track-resend"))
def resend() -> tuple[list[str], dict[str, str]]:
    """Sends what lies in the outbox; returns the ids of the runs it reached, and by the name of
    each message that could not be sent, why."""
    sent, unsent = [], {}
    for name, message in outbox.waiting().items():
        try:
            sent.append(_send(name, message))
        except store.DamagedArtifactError as error:
            outbox.arrived(name)  # nothing is left that could be sent
            unsent[name] = f"{error}: it is given up; run its grid again"
        except Exception as error:  # a server that is away fails in many ways
            unsent[name] = redacted(str(error))
    return sent, unsent


def cell_entry(row: CellRow, grid: str) -> Entry:
    """What the run of a grid's cell says; its name ends in the grid's own."""
    named = {"ddim.cell": cell_name(row), "ddim.checkpoint_name": row.checkpoint}
    return _entry(
        row.cell_digest, f"{cell_name(row)} of {row.checkpoint} {grid[:8]}",
        _cell_tags(row) | named, row, PARAMETERS, _metrics(row, METRICS),
    )  # fmt: skip


def _point_entry(row: PointRow, run: str) -> Entry:
    title = f"{cell_name(row)} of {row.dataset} {run[:8]} seed {row.training_seed}"
    metrics = _metrics(row, POINT_METRICS)
    return _entry(row.cell_digest, title, _point_tags(row), row, POINT_PARAMETERS, metrics)


def track(
    experiment: str,
    parent: Entry,
    children: list[Entry],
    report: Report,
    complete: bool = True,
) -> str:
    """Logs one run with its children, and then what an earlier run could not; returns its id.

    Args:
        experiment: Its name.
        parent, children: What the runs say.
        report: With its page; its sentences describe the parent.
        complete: Nothing of it failed.
    """
    told = Report(report.page, report.figures, report.reading)
    status: Literal["FINISHED", "FAILED"] = "FINISHED" if complete else "FAILED"
    message = Message(experiment, parent, children, told, status)
    name = f"{experiment}-{parent.identity[:32]}"
    outbox.keep(name, message)
    run_id = _send(name, message)
    resend.fn()  # the server is there: what is left is told of by `ddim track --resend`
    return run_id


def _send(name: str, message: Message) -> str:
    """Brings a message to MLflow and takes it from the outbox; returns the parent run's id."""
    parent = message.parent
    with one_at_a_time():
        client = database.client()
        experiment = find_experiment(client, message.experiment)
        known = known_runs(client, experiment, parent.identity)
        top = say(client, experiment, known, parent, {"ddim.grid": parent.identity})
        below = {"ddim.grid": parent.identity, "mlflow.parentRunId": top.info.run_id}
        for child in message.children:
            finish(client, say(client, experiment, known, child, below))
        _log_report(client, top, message)
        finish(client, top, message.status)
        outbox.arrived(name)
    return str(top.info.run_id)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Creating the database, and finding or making a run, are not atomic."""
    lock = places.local_dir("work", "mlflow.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def find_experiment(client: mlflow.MlflowClient, name: str) -> str:
    """The id of an experiment, which is made where there is none of the name."""
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    local = not os.environ["MLFLOW_TRACKING_URI"].startswith("http")
    artifacts = places.local_dir("mlartifacts").as_uri() if local else None
    # Without a kind MLflow's UI opens on its pages for language models, not on the runs.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(name, artifact_location=artifacts, tags=kind))


def known_runs(
    client: mlflow.MlflowClient, experiment: str, grid: str, identity: str = ""
) -> dict[str, mlflow.entities.Run]:
    """The grid's runs so far, or the one of an identity, by the digest of what each one logs."""
    wanted = f"tags.`ddim.grid` = '{grid}'"
    if identity:
        wanted += f" and tags.`ddim.identity` = '{identity}'"
    known: dict[str, mlflow.entities.Run] = {}
    token = None
    while True:
        page = client.search_runs([experiment], wanted, max_results=1000, page_token=token)
        known.update({run.data.tags["ddim.identity"]: run for run in page})
        token = page.token
        if not token:
            return known


def _entry(
    identity: str,
    name: str,
    tags: dict[str, str],
    row: CellRow | PointRow,
    parameters: tuple[str, ...],
    metrics: dict[str, float],
) -> Entry:
    return Entry(
        identity=identity,
        name=name,
        tags={"ddim.identity": identity, **tags},
        parameters={key: getattr(row, key) for key in parameters},
        metrics=metrics,
    )


def _cell_tags(row: CellRow) -> dict[str, str]:
    return _tags(row.checkpoint_digest, row.reference_digest, row.code_digest)


def _point_tags(row: PointRow) -> dict[str, str]:
    return _tags(row.model_digest, row.dataset, row.code_digest)


def _tags(model: str, reference: str, code: str) -> dict[str, str]:
    return {"ddim.checkpoint": model, "ddim.reference": reference, "ddim.code": code}


def _grid_name(of: str, grid: str) -> str:
    return f"grid {of} {grid[:8]}"


def _metrics(row: CellRow | PointRow, names: tuple[str, ...], prefix: str = "") -> dict[str, float]:
    known = {name: getattr(row, name) for name in names}
    return {f"{prefix}{name}": float(v) for name, v in known.items() if v is not None}


def say(
    client: mlflow.MlflowClient,
    experiment: str,
    known: dict[str, mlflow.entities.Run],
    entry: Entry,
    links: dict[str, str],
) -> mlflow.entities.Run:
    """Finds or makes an entry's run, and logs what it does not say yet, in one batch."""
    tags = entry.tags | links
    run = known.get(entry.identity) or client.create_run(experiment, run_name=entry.name, tags=tags)
    said = run.data
    now = mlflow.utils.time.get_current_time_millis()
    params = [
        mlflow.entities.Param(k, str(v))
        for k, v in entry.parameters.items()
        if k not in said.params
    ]
    metrics = [
        mlflow.entities.Metric(k, v, now, 0)
        for k, v in entry.metrics.items()
        if said.metrics.get(k) != v
    ]
    changed = [mlflow.entities.RunTag(k, v) for k, v in tags.items() if said.tags.get(k) != v]
    if params or metrics or changed:
        client.log_batch(run.info.run_id, metrics=metrics, params=params, tags=changed)
    return run


def _log_report(client: mlflow.MlflowClient, parent: mlflow.entities.Run, message: Message) -> None:
    report = message.report
    page = report.page.artifact
    if parent.data.tags.get("ddim.report") == page:
        return
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "report.html").write_bytes(store.get(report.page))
        for name, ref in report.figures.items():
            if name.startswith(PREVIEW_OF):  # which stand in the table of images
                continue
            file = require_plain_name(f"{name}.png", "the figure")
            Path(folder, file).write_bytes(store.get(ref))
        client.log_artifacts(parent.info.run_id, folder)
    _log_images(client, parent, message)
    client.log_batch(
        parent.info.run_id,
        tags=[
            mlflow.entities.RunTag("ddim.report", page),
            mlflow.entities.RunTag("mlflow.note.content", "\n\n".join(report.reading)),
        ],
    )


def _log_images(client: mlflow.MlflowClient, parent: mlflow.entities.Run, message: Message) -> None:
    """Logs a table of the cells whose images the report previews: name, FID, images."""
    figures = message.report.figures
    shown = [
        (child, ref)
        for child in message.children
        if (ref := figures.get(f"{PREVIEW_OF}{child.identity[:CELL_DIGITS]}"))
    ]
    if not shown:
        return
    pictures = [Image.open(io.BytesIO(store.get(ref))) for _, ref in shown]
    table = {
        "cell": [child.tags["ddim.cell"] for child, _ in shown],
        "fid": [round(child.metrics["fid"], 4) for child, _ in shown],
        "images": [mlflow.Image(picture) for picture in pictures],
    }
    # A table of one name would be added to: each page has its own.
    client.log_table(parent.info.run_id, table, f"images-{message.report.page.artifact[:8]}.json")


def finish(client: mlflow.MlflowClient, run: mlflow.entities.Run, status: str = "FINISHED") -> None:
    """Ends a run with a status that it does not have yet."""
    if run.info.status != status:
        client.set_terminated(run.info.run_id, status)
