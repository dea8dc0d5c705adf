"""The `ddim` command: bad input gives one sentence and exit code 2, and nothing is lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.commands.options import one_sentence
from tasks.storage.store import StoreError
from tests.flows.grids import GridRun, Project

pytestmark = pytest.mark.timeout(180)
QUICK = [
    "--no-sigma-hat",
    "--steps",
    "2",
    "--etas",
    "0",
    "--n-images",
    "10",
    "--features",
    "pixels",
]


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def assert_refused(exit_code: int, errors: str, wanted: str) -> None:
    assert exit_code == 2, errors
    lines = [line for line in errors.splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith("reading what is asked for")]  # it is slow
    lines = [line for line in lines if not line.startswith(("grid: ", "still "))]  # what it is at
    assert len(lines) == 1, errors
    assert lines[0].startswith("ddim: ")
    assert wanted in lines[0]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--steps 0", "steps is 0; it must be at least 1"),
        ("--steps 10,-3", "steps is -3"),
        ("--steps 1001", "1001"),
        ("--steps []", "steps is empty"),
        ("--etas -0.1", "eta is -0.1; it must lie in [0, 1]"),
        ("--etas 0,2", "eta is 2.0; it must lie in [0, 1]"),
        ("--etas nan", "eta is nan"),
        ("--n-images 0", "n_images is 0"),
        ("--n-images 1", "n_images is 1"),
        ("--n-images 99999999999999", "n_images is 99999999999999"),
        ("--dataset imagenet", "'imagenet'"),
        ("--split dev", "split is 'dev'"),
        ("--features vgg", "features is 'vgg'"),
        ("--spacing log", "spacing is 'log'"),
        ("--seed -1", "seed is -1"),
        ("--shard-size 0", "shard_size is 0"),
        ("--batch-size 0", "batch_size is 0"),
        ("--threads 0", "threads is 0"),
        ("--workers 0", "workers is 0"),
        ("--train-steps 0", "steps is 0"),
        ("--checkpoint no/such/folder", "'no/such/folder'"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(
    server: str, monkeypatch: pytest.MonkeyPatch, words: str, wanted: str
) -> None:
    monkeypatch.setattr("flows.fid_grid.prepare", lambda *_: pytest.fail("the flow has run"))
    refused = ddim("grid", *words.split())
    assert_refused(refused.exit_code, refused.stderr, wanted)


@pytest.mark.parametrize("words", ["--steps ten", "--etas 0,,x", "--n-images many"])
def test_what_is_no_number_is_refused(words: str) -> None:
    refused = ddim("grid", *words.split())
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "holds no weights"),
        ("unet/config.json", "unet/config.json is missing"),
        ("scheduler/scheduler_config.json", "'scheduler', which is not there"),
    ],
)
def test_incomplete_checkpoint_is_refused(
    server: str, toy: str, tmp_path: Path, missing: str, wanted: str
) -> None:
    folder = Path(shutil.copytree(toy, tmp_path / "incomplete"))
    (folder / missing).unlink()
    refused = ddim("grid", "--checkpoint", str(folder), *QUICK)
    assert_refused(refused.exit_code, refused.stderr, wanted)


def test_more_steps_than_the_checkpoint_has_is_refused(server: str, toy: str) -> None:
    refused = ddim("grid", "--checkpoint", toy, *QUICK, "--steps", "1001")
    assert_refused(refused.exit_code, refused.stderr, "1001")


def test_bad_input_loses_nothing(run_grid: Callable[..., GridRun], toy: str) -> None:
    before = run_grid(seed=401, n_images=10).rows
    for words in ("--steps 0", "--etas 2", "--steps 1001", "--n-images 0"):
        assert ddim("grid", "--checkpoint", toy, *QUICK, *words.split()).exit_code == 2
    again = run_grid(seed=401, n_images=10)
    assert again.rows == before
    assert not again.computed


def in_a_process(project: Project, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.app", *words], cwd=project.folder, text=True,
        env=project.environment, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


def test_bad_input_in_a_process_of_its_own_prints_one_sentence(project: Project) -> None:
    refused = in_a_process(project, "grid", "--etas", "2")
    assert_refused(refused.returncode, refused.stderr, "eta is 2.0")
    assert refused.stdout == ""


@pytest.mark.parametrize("server_is_given", [True, False])
def test_place_that_cannot_be_written_gives_one_sentence(
    project: Project, tmp_path: Path, server_is_given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("kept")
    if not server_is_given:  # as a newcomer has it: Prefect's home lies below DDIM_DATA
        monkeypatch.delenv("PREFECT_API_URL")
        monkeypatch.delenv("PREFECT_HOME")
    refused = in_a_process(replace(project, data=tmp_path / "file" / "data"), "grid", *QUICK)
    assert_refused(refused.returncode, refused.stderr, "cannot be made one")
    assert (tmp_path / "file").read_text() == "kept"


def test_grid_prints_its_table_and_where_everything_lies(server: str, toy: str) -> None:
    done = ddim("grid", "--checkpoint", toy, *QUICK, "--seed", "402")
    assert done.exit_code == 0, done.output
    assert (
        "N = 10 a cell, 1297 real, pixels features, uniform spacing, seed 402, 95 % intervals"
        in done.stdout
    )
    assert "images drawn: 10" in done.stdout
    report = next(line for line in done.stdout.splitlines() if line.startswith("report:"))
    page = Path(report.split()[-1]).read_text()
    # A cell's images, the nearest real ones, and the x0 on the way.
    assert page.count("data:image/png;base64,") == 3
    assert "default-src &#39;none&#39;" in page  # opens from disk, and asks nobody for anything
    assert "mlflow ui --backend-store-uri" in done.stdout
    again = ddim("grid", "--checkpoint", toy, *QUICK, "--seed", "402")
    assert "images drawn: 0" in again.stdout
    told = json.loads(ddim("grid", "--checkpoint", toy, *QUICK, "--seed", "402", "--json").stdout)
    assert (told["images_drawn"], told["report"]) == (0, report.split()[-1])
    assert [row["cell_digest"] for row in told["rows"]] == told["cells"]


def test_table_and_report_commands_show_what_is_there(run_grid: Callable[..., GridRun]) -> None:
    grid = run_grid(seed=403, n_images=10)
    rows = json.loads(ddim("table", "--json").stdout)
    assert {row["cell_digest"] for row in rows} >= set(grid.result.cells)
    assert "eta = 1" in ddim("table").stdout
    assert ddim("report").stdout.splitlines()[-1] == grid.result.report


def test_a_deployment_is_started_by_its_short_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert ddim("deploy-run", "swiss-roll", "-p", "steps=[2]").exit_code == 0
    assert asked[0][-3:] == ["swiss-roll/swiss-roll", "-p", "steps=[2]"]
    refused = ddim("deploy-run", "fid-gird")
    assert_refused(refused.exit_code, refused.stderr, "did you mean fid-grid?")


def test_store_that_fails_on_the_way_is_failed_work_and_not_bad_input() -> None:
    with pytest.raises(typer.Exit) as ended, one_sentence():
        raise StoreError("cannot write /a: No space left on device")
    assert ended.value.exit_code == 1
