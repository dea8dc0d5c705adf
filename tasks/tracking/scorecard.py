"""MLflow: one run for each LoRA's scorecard; its measures by scale, as steps of metrics."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from ddim_core.common.digest import digest
from ddim_core.common.late import late
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.safe_files.contained import require_plain_name
from tasks.lora.scoring.table import COLUMNS
from tasks.storage import store
from tasks.storage.artifact import Report
from tasks.storage.columns import names_of
from tasks.storage.naming import run_name
from tasks.tracking import database
from tasks.tracking.client import find_experiment, one_at_a_time

if TYPE_CHECKING:
    import mlflow
else:
    mlflow = late("mlflow")

EXPERIMENT = "lora-scorecard"
PARAMETERS = names_of(COLUMNS, "parameter")


@task(
    name="track-scorecard",
    task_run_name=run_name("track-scorecard"),
    retries=2,
    retry_delay_seconds=2,
)
def track_scorecard(name: str, rows: list[LoraRow], report: Report) -> str:
    """Logs a scorecard's rows and report, once; returns its run's id.

    Known by the LoRA and by what was scored: other scales or prompts make another run.

    A measure of a set of prompts is the metric `<prompts>.<measure>`, its step the scale in
    hundredths.
    """
    with one_at_a_time():
        client = database.client()
        experiment = find_experiment(client, EXPERIMENT)
        scored = [[row.row_digest, row.code_digest] for row in rows]
        identity = f"{name}-{digest(scored)[:12]}"
        found = client.search_runs([experiment], f"tags.`ddim.identity` = '{identity}'")
        if found and found[0].info.status == "FINISHED":
            return str(found[0].info.run_id)
        first = rows[0]
        run = found[0] if found else client.create_run(
            experiment,
            run_name=name,
            tags={
                "ddim.identity": identity,
                "ddim.lora": first.lora_digest,
                "ddim.base": first.base_digest,
                "ddim.code": first.code_digest,
            },
        )  # fmt: skip
        run_id = run.info.run_id
        parameters = [mlflow.entities.Param(name, str(getattr(first, name))) for name in PARAMETERS]
        client.log_batch(run_id, metrics=_metrics(rows), params=parameters)
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "report.html").write_bytes(store.get(report.page))
            for figure, ref in report.figures.items():
                file = require_plain_name(f"{figure}.png", "the figure")
                Path(folder, file).write_bytes(store.get(ref))
            client.log_artifacts(run_id, folder)
        note = mlflow.entities.RunTag("mlflow.note.content", "\n\n".join(report.reading))
        client.log_batch(run_id, tags=[note])
        client.set_terminated(run_id)
    return str(run_id)


def _metrics(rows: list[LoraRow]) -> list[mlflow.entities.Metric]:
    now = mlflow.utils.time.get_current_time_millis()
    return [
        mlflow.entities.Metric(f"{row.prompts}.{name}{end}", value, now, round(100 * row.scale))
        for row in rows
        for name, score in row.measures.items()
        for end, value in (("", score.value), ("_low", score.low), ("_high", score.high))
        if value is not None
    ]
