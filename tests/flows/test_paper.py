"""The paper's flow: a small run with all it leaves, a second one from the cache, bad input."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flows.cli.commands.flows import paper as command
from tests.flows.grids import at_rest, counted

pytestmark = pytest.mark.timeout(240)
SMALL: dict[str, Any] = {
    "steps": [2, 4], "etas": [0.0], "n_images": 14, "features": "pixels", "shard_size": 10,
    "reconstruction_steps": [2, 4, 8], "n_reconstructed": 20,
}  # fmt: skip
COMPUTING = (
    "reconstruct", "consistency", "interpolate", "x0-sequence", "sample-shard",
    "render-paper-report",
)  # fmt: skip
FIGURES = {
    "table_1.png", "table_2.png", "figure_3_samples.png", "figure_4_cost.png",
    "figure_5_consistency.png", "figure_6_line.png", "figure_6_grid.png", "x0_sequence.png",
    "reconstructions.png",
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_picture_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 6 and the predicted x0 in five steps, not fifty."""
    monkeypatch.setattr("flows.paper.PICTURE_STEPS", 5)


@dataclass(frozen=True)
class Run:
    """A finished run: its id, what it returned, and its own task runs by name and state."""

    flow_run_id: Any
    result: Any
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

    from flows.paper import paper

    state = paper(**{**SMALL, **asked}, return_state=True)
    assert state.is_completed(), state.message
    flow_run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        runs = at_rest(client, flow_run_id, "track-paper")
    return Run(flow_run_id, state.result(), counted(runs))


def test_a_run_leaves_rows_figures_and_a_page_and_a_second_computes_nothing(
    server: str, toy: str
) -> None:
    from mlflow import MlflowClient
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    from tasks.storage.cell_rows import read_rows

    first = run(checkpoint=toy, seed=71)
    assert first.computed == {
        "reconstruct": 3, "consistency": 1, "interpolate": 1, "x0-sequence": 1,
        "render-paper-report": 1,
    }  # fmt: skip
    assert first.tasks["sample-shard", "Cached"] == 2  # S = 4 of both lines, drawn by the grid
    rows = read_rows(first.result.cells).whole().frame
    assert sorted(zip(rows["variance"], rows["steps"], strict=True)) == [
        ("eta", 2), ("eta", 4), ("sigma_hat", 2), ("sigma_hat", 4),
    ]  # fmt: skip
    assert first.result.images_drawn == 4 * 14
    assert [r.steps for r in first.result.reconstructions] == [2, 4, 8]
    errors = [r.error for r in first.result.reconstructions]
    assert all(0 < (e.low or 0.0) < e.mean < (e.high or 0.0) for e in errors)

    page = Path(first.result.report)
    text = page.read_text()
    assert page.parent.name.startswith("paper-")
    assert {path.name for path in page.parent.iterdir()} == {"index.html", *FIGURES}
    # Both tables and the costs are charts, and the samples are compared.
    assert text.count('src="data:image/png;base64,') == len(FIGURES) - 4
    assert '<div id="compare">' in text
    assert "another model and another data set" in text
    assert "20 held-out images (digits test)" in text

    again = run(checkpoint=toy, seed=71)
    assert again.computed == {}
    assert again.result == replace(first.result, images_drawn=0)
    assert page.read_text() == text

    client = MlflowClient()
    experiment = client.get_experiment_by_name("paper")
    runs = [r for r in client.search_runs([experiment.experiment_id])
            if r.data.params["seed"] == "71"]  # fmt: skip
    assert len(runs) == 1
    for record in first.result.reconstructions:
        logged = runs[0].data.metrics[f"reconstruction_mse_S{record.steps}"]
        assert logged == record.error.mean
    kept = {file.path for file in client.list_artifacts(runs[0].info.run_id)}
    assert kept == {"report.html", *FIGURES}
    assert runs[0].data.tags["mlflow.note.content"].endswith(f"Report: `{page}`")

    with get_client(sync_client=True) as api:
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[first.flow_run_id]))
        artifacts = api.read_artifacts(artifact_filter=of_run)
    assert "paper-report" in {artifact.key for artifact in artifacts}


def test_the_toy_is_trained_once_and_rows_are_those_of_a_grid_run_alone(server: str) -> None:
    from flows.fid_grid import fid_grid

    both = run(train_steps=5, seed=72, reconstruction_steps=[2])
    assert both.tasks["train-toy", "Completed"] == 1
    grid = {name: SMALL[name] for name in ("steps", "etas", "n_images", "features", "shard_size")}
    alone = fid_grid(train_steps=5, seed=72, sigma_hat=True, **grid)
    assert set(alone.cells) == set(both.result.cells)
    assert alone.images_drawn == 0


def test_own_images_with_a_broken_one_and_steps_not_asked_for_are_told_in_the_report(
    server: str, toy: str, tmp_path: Path
) -> None:
    import numpy as np
    from PIL import Image

    for i, grey in enumerate(np.linspace(0, 255, 20).astype(np.uint8)):
        Image.fromarray(np.full((8, 8), grey)).save(tmp_path / f"{i:02}.png")
    (tmp_path / "waste.png").write_bytes(b"waste")
    done = run(
        checkpoint=toy, dataset=str(tmp_path), max_broken=1, background="black", runner="threads",
        workers=1, steps=[2], reconstruction_steps=[30], seed=75,
    )  # fmt: skip
    text = Path(done.result.report).read_text()
    assert "broken (1): waste.png" in text
    assert "S = 30: 30 steps were asked for and 31 are taken" in text


def test_what_fails_is_named_and_all_else_is_in_the_report(
    server: str, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.sampling.beyond_sampling
    import tasks.sampling.native
    from flows.paper import paper

    whole = tasks.sampling.native.sample
    reconstructed = tasks.sampling.beyond_sampling.reconstruct_images

    def one_cell_fails(model: Any, schedule: Any, spec: Any, *noise: Any) -> Any:
        if spec.variance == "sigma_hat" and spec.steps == 4:
            raise ValueError("the network burst")
        return whole(model, schedule, spec, *noise)

    def one_step_count_fails(model: Any, schedule: Any, spec: Any, *images: Any) -> Any:
        if spec.steps == 8:
            raise ValueError("<b>the encoder burst")
        return reconstructed(model, schedule, spec, *images)

    monkeypatch.setattr(tasks.sampling.native, "sample", one_cell_fails)
    monkeypatch.setattr(tasks.sampling.beyond_sampling, "reconstruct_images", one_step_count_fails)
    state = paper(
        **{**SMALL, "checkpoint": toy, "seed": 73, "n_reconstructed": 19}, return_state=True
    )
    assert state.is_failed()
    told = str(state.message)
    assert "S=4 sigma-hat" in told
    assert "the network burst" in told
    assert "reconstruction S=8" in told
    page = Path(told.rsplit("report of the others: ", 1)[1])
    text = page.read_text()
    assert {path.name for path in page.parent.iterdir()} == {"index.html", *FIGURES}
    assert "&lt;b&gt;the encoder burst" in text
    assert text.count('<td class="paper">') == 3 + 2  # cells, and S of table 2

    monkeypatch.undo()
    healed = run(checkpoint=toy, seed=73, n_reconstructed=19)
    assert healed.result.images_drawn == 14
    assert "These failed" not in Path(healed.result.report).read_text()


def test_command_ends_with_1_where_an_experiment_failed_and_says_where_the_report_is(
    server: str, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tasks.sampling.beyond_sampling

    def fails(*work: Any) -> Any:
        raise ValueError("the noise burst")

    for name in ("line", "plan", "_noise", "reconstruct_images"):
        monkeypatch.setattr(tasks.sampling.beyond_sampling, name, fails)
    app = typer.Typer()
    app.command()(command)
    words = f"--checkpoint {toy} --steps 2 --etas 0 --n-images 10 --features pixels --seed 74"
    ended = CliRunner().invoke(
        app, [*words.split(), "--reconstruction-steps", "2", "--n-reconstructed", "18"]
    )
    assert ended.exit_code == 1, ended.output
    for experiment in ("reconstruction S=2", "consistency", "interpolate", "x0_sequence"):
        assert experiment in ended.stderr
    page = Path(ended.stderr.strip().rsplit("report of the others: ", 1)[1])
    assert {path.name for path in page.parent.iterdir()} == {
        "index.html", "table_1.png", "figure_3_samples.png", "figure_4_cost.png",
    }  # fmt: skip


def save_conditional(folder: Path) -> Path:
    """An untrained network that is told of 3 classes."""
    from diffusers import UNet2DModel

    UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=8,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), layers_per_block=1,
        num_class_embeds=3,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def refused(words: str) -> str:
    app = typer.Typer()
    app.command()(command)
    found = CliRunner().invoke(app, words.split())
    assert found.exit_code == 2, found.stderr
    lines = [line for line in found.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("paper: ", "still "))]  # what it is at
    assert len(lines) == 1, found.stderr
    assert lines[0].startswith("ddim: ")
    return lines[0]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--steps 0", "steps is 0; it must be at least 1"),
        ("--steps 10,1001", "1001"),
        ("--steps []", "steps is empty"),
        ("--etas 2", "eta is 2.0; it must lie in [0, 1]"),
        ("--n-images 1", "n_images is 1; it must be at least 2"),
        ("--reconstruction-steps 10,0", "reconstruction_steps is 0; it must be at least 1"),
        ("--reconstruction-steps 1001", "1001 steps of 1000"),
        ("--reconstruction-steps []", "reconstruction_steps is empty"),
        ("--n-reconstructed 0", "n_reconstructed is 0; it must be at least 2"),
        ("--checkpoint nowhere", "there is no checkpoint folder or file 'nowhere'"),
        ("--spacing log", "spacing is 'log'"),
        ("--batch-size 0", "batch_size is 0"),
        ("--max-broken -1", "max_broken is -1"),
        ("--background puce", "background is 'puce'"),
        ("--runner fibres", "runner is 'fibres'"),
        ("--workers 0", "workers is 0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(words: str, wanted: str) -> None:
    assert wanted in refused(words)


def test_what_only_the_checkpoint_or_the_data_tell_is_refused_before_any_sampling(
    server: str, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*work: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("flows.paper._explore", nothing)
    monkeypatch.setattr("flows.paper.submit_training", nothing)
    assert "1001 steps of 1000" in refused(f"--checkpoint {toy} --reconstruction-steps 1001")
    assert "1001 steps of 1000" in refused(f"--checkpoint {toy} --steps 1001")
    conditional = save_conditional(tmp_path / "conditional")
    assert "the checkpoint is conditional on 3 classes" in refused(f"--checkpoint {conditional}")
    too_many = refused("--n-reconstructed 501")
    assert "n_reconstructed is 501 and 'digits' test has 500 images" in too_many
