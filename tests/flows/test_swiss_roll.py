"""The points flow: a small run from training to report, a second one from the cache, bad input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from flows.cli.commands.flows import swiss_roll as command
from tests.flows.grids import at_rest, counted

if TYPE_CHECKING:
    from flows.swiss_roll import PointOutcome

pytestmark = pytest.mark.timeout(240)
SMALL: dict[str, Any] = {
    "steps": [5, 10], "etas": [0.0, 1.0], "n_points": 100, "sampling_seeds": 3, "train_steps": 20,
}  # fmt: skip
COMPUTING = (
    "train-point-model", "sample-points", "trace-points", "score-generated", "score-floor",
    "render-point-report",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run: what it returned, and its task runs by name and final state."""

    result: PointOutcome
    tasks: Counter[tuple[str, str]]

    @property
    def computed(self) -> dict[str, int]:
        """How many runs of each cached task did not come from the cache."""
        return {
            name: n
            for (name, state), n in self.tasks.items()
            if name in COMPUTING and state != "Cached"
        }


def run(**asked: Any) -> Run:
    """Runs the flow, small where nothing is asked, and waits until the API knows of all of it."""
    from prefect.client.orchestration import get_client

    from flows.run.runners import with_workers
    from flows.swiss_roll import swiss_roll

    state = with_workers(swiss_roll, 2)(**{**SMALL, **asked}, return_state=True)
    assert state.is_completed(), state.message
    with get_client(sync_client=True) as client:
        runs = at_rest(client, state.state_details.flow_run_id, "track-points")
    return Run(state.result(), counted(runs))


def rows_of(done: Run) -> pd.DataFrame:
    from tasks.points.table import POINTS

    frame = POINTS.read().whole().frame
    return frame[frame["cell_digest"].isin(done.result.cells)]


def test_a_run_leaves_rows_figures_and_a_page_and_a_second_computes_nothing(server: str) -> None:
    from mlflow import MlflowClient

    first = run(seed=11)
    assert first.computed == {
        "train-point-model": 1, "sample-points": 12, "trace-points": 1, "score-generated": 4,
        "score-floor": 1, "render-point-report": 1,
    }  # fmt: skip
    rows = rows_of(first)
    assert sorted(zip(rows["eta"], rows["steps"], strict=True)) == [
        (0.0, 5), (0.0, 10), (1.0, 5), (1.0, 10),
    ]  # fmt: skip
    assert (rows["chamfer_low"] < rows["chamfer"]).all()
    assert (rows["chamfer"] < rows["chamfer_high"]).all()
    assert rows["timesteps"].map(len).tolist() == rows["nfe"].tolist()
    page = Path(first.result.report)
    assert "Chamfer" in page.read_text()
    assert {path.name for path in page.parent.iterdir()} == {
        "index.html", "chamfer.png", "forward.png", "generated.png", "reverse.png", "process.gif",
    }  # fmt: skip
    again = run(seed=11)
    assert again.computed == {}
    assert again.result == first.result
    pd.testing.assert_frame_equal(rows_of(again), rows)

    client = MlflowClient()
    experiment = client.get_experiment_by_name("swiss-roll")
    cells = [r for r in client.search_runs([experiment.experiment_id])
             if r.data.params.get("training_seed") == "11"]  # fmt: skip
    assert len(cells) == 4  # once each
    assert all(r.data.metrics["chamfer"] > 0 for r in cells)


def test_steps_that_are_not_those_asked_for_are_told_in_the_report(server: str) -> None:
    told = Path(run(seed=41, steps=[30], etas=[0.0]).result.report).read_text()
    assert "S = 30: 30 steps were asked for and 31 are taken" in told


def test_a_further_training_seed_and_setting_compute_only_what_is_new(server: str) -> None:
    run(seed=11)  # of the first test
    more = run(seed=11, train_seeds=2, steps=[5, 10, 20])
    new = more.computed
    assert new["train-point-model"] == 1
    assert new["sample-points"] == 2 * 3 + 6 * 3  # one new S on the old model, all on the new
    assert "score-floor" not in new
    assert set(rows_of(more)["training_seed"]) == {11, 12}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--steps 0", "steps is 0; it must be at least 1"),
        ("--steps 1001", "1001"),
        ("--steps []", "steps is empty"),
        ("--etas 0,2", "eta is 2.0; it must lie in [0, 1]"),
        ("--dataset spiral", "dataset is 'spiral'; it must be one of swiss-roll"),
        ("--spacing log", "spacing is 'log'"),
        ("--n-points 0", "n_points is 0"),
        ("--train-seeds 0", "train_seeds is 0"),
        ("--sampling-seeds 0", "sampling_seeds is 0"),
        ("--train-steps 0", "train_steps is 0"),
        ("--seed -1", "seed is -1"),
        ("--threads 0", "threads is 0"),
        ("--runner fibres", "runner is 'fibres'"),
        ("--workers 0", "workers is 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(words: str, wanted: str) -> None:
    app = typer.Typer()
    app.command()(command)
    refused = CliRunner().invoke(app, words.split())
    assert refused.exit_code == 2
    lines = [line for line in refused.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, refused.stderr
    assert lines[0].startswith("ddim: ")
    assert wanted in lines[0]
