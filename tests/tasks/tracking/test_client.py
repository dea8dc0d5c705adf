"""MLflow: what a grid's runs hold, and that logging it twice adds none. The database is real."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from PIL import Image

from ddim_core.decisions.row import CellRow
from ddim_core.reports.grid_figures import strip
from tasks.storage import places, store
from tasks.storage.artifact import ArtifactRef, Report
from tasks.tracking import database, outbox
from tasks.tracking.cells import cells_logged_early
from tasks.tracking.client import GRIDS, METRICS, PARAMETERS, find_experiment, resend, track_grid
from tests.core.rows import cell_row

pytestmark = pytest.mark.timeout(120)


def row(steps: int, eta: float, fid: float, **changed: Any) -> CellRow:
    return cell_row(**{
        "cell_digest": f"{steps:02x}{int(100 * eta):02x}" * 16, "checkpoint_digest": "c" * 64,
        "reference_digest": "d" * 64, "extractor_digest": "e" * 64, "code_digest": "f" * 64,
        "checkpoint": "toy", "dataset": "digits", "split": "train", "extractor": "pixels",
        "resize": "native", "training_step": None, "weights": None, "noise_schedule": "checkpoint",
        "overrides": "", "prompts_digest": None, "steps": steps, "eta": eta, "variance": "eta",
        "spacing": "uniform", "prediction_type": "epsilon", "clip": False, "guidance_scale": 1.0,
        "seed": 0, "n_images": 20, "n_reference": 1297, "shard_size": 10, "resolution": 8,
        "fid": fid, "fid_low": fid - 1, "fid_high": fid + 1, "fid_inf": None, "fid_inf_low": None,
        "fid_inf_high": None, "kid": 0.25, "kid_std": 0.5, "precision": 0.1, "recall": None,
        "class_accuracy": None,
        "nfe": steps, "sample_seconds": 1.5, "images_per_second": 13.0, "dtype": "float32",
        **changed,
    })  # fmt: skip


ROWS = [row(5, 0.0, 80.0), row(10, 0.0, 20.0), row(10, 0.5, 30.0)]


def report(text: str) -> Report:
    figures = {name: store.put(name.encode(), "figure") for name in ("heat_map", "samples")}
    preview = store.put(strip(np.full((4, 8, 8, 3), 200, np.uint8)), "figure")
    figures |= {f"images-{row.cell_digest[:10]}": preview for row in ROWS[:2]}
    return Report(store.put(text.encode(), "report"), figures, ["One sentence.", "Another."])


def runs_of(grid: str) -> tuple[list[Run], list[Run]]:
    """The grid's parent runs and child runs."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(GRIDS)
    runs = client.search_runs([experiment.experiment_id], f"tags.`ddim.grid` = '{grid}'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def artifacts(run: Run, tmp_path: Path) -> dict[str, bytes]:
    MlflowClient().download_artifacts(run.info.run_id, "", str(tmp_path))
    return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def logged() -> str:
    """A grid that was logged twice."""
    ids = {track_grid.fn("grid-a", ROWS, report("<p>page</p>")) for _ in range(2)}
    assert len(ids) == 1
    return ids.pop()


def test_logging_twice_gives_one_parent_and_one_child_for_each_cell(logged: str) -> None:
    parents, children = runs_of("grid-a")
    assert [run.info.run_id for run in parents] == [logged]
    assert {run.data.tags["ddim.identity"] for run in children} == {r.cell_digest for r in ROWS}
    assert len(children) == len(ROWS)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {logged}
    assert {run.info.status for run in [*parents, *children]} == {"FINISHED"}


def test_children_hold_the_rows(logged: str) -> None:
    children = {run.data.tags["ddim.identity"]: run for run in runs_of("grid-a")[1]}
    for one in ROWS:
        run, columns = children[one.cell_digest], vars(one)
        assert run.data.metrics == {k: float(columns[k]) for k in METRICS if columns[k] is not None}
        assert run.data.params == {k: str(columns[k]) for k in PARAMETERS}
        assert run.data.tags["ddim.checkpoint"] == one.checkpoint_digest


def test_children_of_two_grids_are_told_apart_by_their_names(logged: str) -> None:
    other = [replace(one, cell_digest=one.cell_digest[:-1] + "f") for one in ROWS]
    track_grid.fn("other-grid", other, report("<p>other</p>"))
    names = [{run.info.run_name for run in runs_of(grid)[1]} for grid in ("grid-a", "other-grid")]
    assert names[0] == {
        "S = 5, eta = 0 of toy grid-a", "S = 10, eta = 0 of toy grid-a",
        "S = 10, eta = 0.5 of toy grid-a",
    }  # fmt: skip
    assert not names[0] & names[1]
    tags = {run.data.tags["ddim.cell"] for run in runs_of("grid-a")[1]}
    assert tags == {"S = 5, eta = 0", "S = 10, eta = 0", "S = 10, eta = 0.5"}


def test_metrics_that_are_not_known_are_left_out_rather_than_zero(logged: str) -> None:
    for run in runs_of("grid-a")[1]:
        assert not {"fid_inf", "fid_inf_low", "recall"} & set(run.data.metrics)


def test_parent_holds_the_best_cell_the_reading_and_the_report(logged: str, tmp_path: Path) -> None:
    (parent,), _ = runs_of("grid-a")
    assert parent.data.metrics["best_fid"] == 20.0
    assert parent.data.params["n_images"] == "20"
    assert "One sentence." in parent.data.tags["mlflow.note.content"]
    found = artifacts(parent, tmp_path)
    (table,) = [json.loads(found.pop(name)) for name in list(found) if name.endswith(".json")]
    assert table["columns"] == ["cell", "fid", "images"]
    assert [line[:2] for line in table["data"]] == [["S = 5, eta = 0", 80], ["S = 10, eta = 0", 20]]
    file = tmp_path / table["data"][0][2]["filepath"]
    shown = np.asarray(Image.open(file))  # of 8 pixels and one between, sevenfold, three in a row
    assert shown.shape == (119, 182, 3)
    assert (shown[63, 0, 0], shown[63, 63, 0]) == (200, 255)  # the fourth, and none
    assert shown[56, 0, 0] == 255
    assert found == {
        "report.html": b"<p>page</p>", "heat_map.png": b"heat_map", "samples.png": b"samples",
    }  # fmt: skip


def test_logging_a_grid_again_with_another_report_and_metric_updates_its_runs(
    tmp_path: Path,
) -> None:
    track_grid.fn("grid-b", ROWS, report("old"))
    track_grid.fn("grid-b", [replace(ROWS[0], fid=70.0), *ROWS[1:]], report("new"))
    (parent,), children = runs_of("grid-b")
    assert artifacts(parent, tmp_path)["report.html"] == b"new"
    assert sorted(run.data.metrics["fid"] for run in children) == [20.0, 30.0, 70.0]
    assert len(children) == len(ROWS)


def test_same_cells_in_a_wider_grid_get_runs_of_their_own(logged: str) -> None:
    track_grid.fn("grid-c", [*ROWS, row(20, 0.0, 10.0)], report("wider"))
    assert len(runs_of("grid-c")[1]) == 4
    assert len(runs_of("grid-a")[1]) == 3


def test_grid_whose_logging_was_cut_short_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    whole = MlflowClient.log_batch

    def breaks(self: MlflowClient, *args: Any, **kwargs: Any) -> None:
        if next(calls) == 2:
            raise ConnectionError("cut")
        whole(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", breaks)
    with pytest.raises(ConnectionError):
        track_grid.fn("grid-d", ROWS, report("page"))
    track_grid.fn("grid-d", ROWS, report("page"))
    parents, children = runs_of("grid-d")
    assert (len(parents), len(children)) == (1, len(ROWS))
    assert sorted(run.data.metrics["fid"] for run in children) == [20.0, 30.0, 80.0]
    assert all(run.info.status == "FINISHED" for run in [*parents, *children])


@contextmanager
def mlflow_away() -> Iterator[None]:
    """MLflow's address leads nowhere while this holds."""
    with socket.socket() as probe, pytest.MonkeyPatch.context() as patched:
        probe.bind(("127.0.0.1", 0))  # nobody listens
        patched.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patched.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{probe.getsockname()[1]}")
        yield


def test_cells_are_logged_as_they_land_and_then_put_below_their_grid() -> None:
    with cells_logged_early("early") as log:
        for landed in ROWS[:2]:
            log(landed)
    early, below = runs_of("early")
    assert sorted(run.data.metrics["fid"] for run in early) == [20.0, 80.0]
    assert {run.info.status for run in early} == {"FINISHED"}
    assert below == []

    track_grid.fn("early", ROWS, report("page"))
    parents, children = runs_of("early")
    assert len(parents) == 1
    assert len(children) == len(ROWS)
    assert {run.info.run_id for run in early} < {run.info.run_id for run in children}


def test_cells_of_one_grid_that_two_processes_log_at_once_have_one_run_each() -> None:
    find_experiment(database.client(), GRIDS)
    with cells_logged_early("raced") as one, cells_logged_early("raced") as other:
        for i, landed in enumerate(ROWS, 1):
            for log in (one, other):
                log(landed)
                deadline = time.monotonic() + 30
                while len(runs_of("raced")[0]) < i and time.monotonic() < deadline:
                    time.sleep(0.02)
    assert len(runs_of("raced")[0]) == len(ROWS)


def test_mlflow_that_is_away_while_cells_land_holds_nothing_up() -> None:
    with mlflow_away(), cells_logged_early("away") as log:
        log(ROWS[0])
    track_grid.fn("away", ROWS, report("page"))
    assert len(runs_of("away")[1]) == len(ROWS)


def test_grid_that_mlflow_could_not_be_told_is_sent_later() -> None:
    with mlflow_away():
        with pytest.raises(MlflowException):
            track_grid.fn("grid-e", ROWS, report("page"), complete=False)
        assert list(outbox.waiting()) == ["fid-grid-grid-e"]
        assert resend.fn()[0] == []
        assert list(outbox.waiting()) == ["fid-grid-grid-e"]
    (sent,), unsent = resend.fn()
    assert unsent == {}
    assert outbox.waiting() == {}
    parents, children = runs_of("grid-e")
    assert [(run.info.run_id, run.info.status) for run in parents] == [(sent, "FAILED")]
    assert sorted(run.data.metrics["fid"] for run in children) == [20.0, 30.0, 80.0]


def test_next_grid_sends_what_an_earlier_one_could_not() -> None:
    outbox.keep("fid-grid-grid-f", message("grid-f"))
    track_grid.fn("grid-g", ROWS, report("page"))
    assert outbox.waiting() == {}
    assert len(runs_of("grid-f")[1]) == len(ROWS)


def test_message_whose_report_is_gone_is_given_up_and_holds_up_no_other() -> None:
    lost = message("grid-h")
    gone = replace(lost.report, page=ArtifactRef("0" * 64, "report"))
    outbox.keep("fid-grid-grid-h", replace(lost, report=gone))
    outbox.keep("fid-grid-grid-i", message("grid-i"))
    sent, unsent = resend.fn()
    assert len(sent) == 1
    assert list(unsent) == ["fid-grid-grid-h"]
    assert "run its grid again" in unsent["fid-grid-grid-h"]
    assert outbox.waiting() == {}


def test_message_that_cannot_be_read_is_no_message(tmp_path: Path) -> None:
    outbox.keep("fid-grid-grid-j", message("grid-j"))
    path = places.local_dir("outbox", "fid-grid-grid-j.json")
    path.write_bytes(path.read_bytes()[:-9])
    assert outbox.waiting() == {}
    assert path.exists()
    path.unlink()


def message(grid: str) -> outbox.Message:
    """What a grid leaves in the outbox when MLflow is away."""
    kept: list[outbox.Message] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "tasks.tracking.client._send", lambda name, message: kept.append(message) or "id"
        )
        patched.setattr("tasks.tracking.client.resend.fn", lambda: ([], {}))
        track_grid.fn(grid, ROWS, report("page"))
    name = f"fid-grid-{grid}"
    assert outbox.waiting()[name] == kept[0]  # as it comes back from its file
    outbox.arrived(name)
    return kept[0]
