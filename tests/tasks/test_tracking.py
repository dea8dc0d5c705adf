"""MLflow: what a grid's runs hold, and that logging it twice adds none. The database is real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from tasks import store
from tasks.tracking import GRIDS, METRICS, PARAMETERS, track_grid

pytestmark = pytest.mark.timeout(120)


def row(steps: int, eta: float, fid: float, **changed: Any) -> dict[str, Any]:
    return {
        "cell_digest": f"{steps:032x}{int(100 * eta):032x}", "checkpoint_digest": "c" * 64,
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
    }  # fmt: skip


ROWS = [row(5, 0.0, 80.0), row(10, 0.0, 20.0), row(10, 0.5, 30.0)]


def report(text: str) -> dict[str, Any]:
    figures = {name: store.put(name.encode(), "figure") for name in ("heat_map", "samples")}
    return {
        "page": store.put(text.encode(), "report"), "figures": figures,
        "reading": ["One sentence.", "Another."],
    }  # fmt: skip


def runs_of(grid: str) -> tuple[list[Run], list[Run]]:
    """The grid's parent runs and child runs."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(GRIDS)
    runs = client.search_runs([experiment.experiment_id], f"tags.`ddim.grid` = '{grid}'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return parents, [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def artifacts(run: Run, tmp_path: Path) -> dict[str, bytes]:
    MlflowClient().download_artifacts(run.info.run_id, "", str(tmp_path))
    return {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.fixture(scope="module")
def logged() -> str:
    """A grid that was logged twice."""
    ids = {track_grid.fn("grid-a", ROWS, report("<p>page</p>")) for _ in range(2)}
    assert len(ids) == 1
    return ids.pop()


def test_logging_twice_gives_one_parent_and_one_child_for_each_cell(logged: str) -> None:
    parents, children = runs_of("grid-a")
    assert [run.info.run_id for run in parents] == [logged]
    assert {run.data.tags["ddim.identity"] for run in children} == {r["cell_digest"] for r in ROWS}
    assert len(children) == len(ROWS)
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {logged}
    assert {run.info.status for run in [*parents, *children]} == {"FINISHED"}


def test_children_hold_the_rows(logged: str) -> None:
    children = {run.data.tags["ddim.identity"]: run for run in runs_of("grid-a")[1]}
    for one in ROWS:
        run = children[one["cell_digest"]]
        assert run.data.metrics == {k: float(one[k]) for k in METRICS if one[k] is not None}
        assert run.data.params == {k: str(one[k]) for k in PARAMETERS}
        assert run.data.tags["ddim.checkpoint"] == one["checkpoint_digest"]


def test_metrics_that_are_not_known_are_left_out_rather_than_zero(logged: str) -> None:
    for run in runs_of("grid-a")[1]:
        assert not {"fid_inf", "fid_inf_low", "recall"} & set(run.data.metrics)


def test_parent_holds_the_best_cell_the_reading_and_the_report(logged: str, tmp_path: Path) -> None:
    (parent,), _ = runs_of("grid-a")
    assert parent.data.metrics["best_fid"] == 20.0
    assert parent.data.params["n_images"] == "20"
    assert "One sentence." in parent.data.tags["mlflow.note.content"]
    assert artifacts(parent, tmp_path) == {
        "report.html": b"<p>page</p>", "heat_map.png": b"heat_map", "samples.png": b"samples",
    }  # fmt: skip


def test_logging_a_grid_again_with_another_report_and_metric_updates_its_runs(
    tmp_path: Path,
) -> None:
    track_grid.fn("grid-b", ROWS, report("old"))
    track_grid.fn("grid-b", [{**ROWS[0], "fid": 70.0}, *ROWS[1:]], report("new"))
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
