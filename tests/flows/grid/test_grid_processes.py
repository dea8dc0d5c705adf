"""Grids in processes that are killed, or that race for the same work."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.flows.grids import GridRun, Project, lasting

KILLS_SEED = 20261123
TRAIN_STEPS = 15  # the driver's state is saved after 10: a kill leaves something to resume


def words(asked: dict[str, Any]) -> list[str]:
    """The command line of a request."""
    options = ["grid", "--no-sigma-hat"]
    for name, value in asked.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        options += [f"--{name.replace('_', '-')}", text]
    return options


def n_files(data: Path, pattern: str) -> int:
    return sum(1 for path in data.glob(pattern) if path.is_file())


def undisturbed(run_grid: Callable[..., GridRun], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the same grid in this process, with its other DDIM_DATA."""
    return lasting(run_grid(**{"checkpoint": "", **asked}).rows)


@pytest.mark.timeout(600)
def test_grid_killed_again_and_again_ends_with_the_table_of_an_undisturbed_one(
    project: Project, run_grid: Callable[..., GridRun]
) -> None:
    asked: dict[str, Any] = {
        "train_steps": TRAIN_STEPS, "seed": 501, "steps": [2, 4], "etas": [0.0, 1.0],
        "n_images": 38, "shard_size": 10, "features": "pixels",
    }  # fmt: skip
    chance = random.Random(KILLS_SEED)
    moments = [  # while training, among the shards, among the rows: each a little further on
        ("work/*.pt", 1),
        ("store/names/*/*", chance.randint(1, 15)),
        ("results/cells/*.parquet", chance.randint(1, 4)),
    ]
    for i, (pattern, wanted) in enumerate(moments):
        process = project.start(*words(asked), tag=f"killed-{i}")
        while n_files(project.data, pattern) < wanted:
            assert process.poll() is None, process.told()
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        assert process.poll() is None, "the grid ended before it could be killed"
        process.kill()
        process.wait(60)
    project.grid(*words(asked), tag="killed-at-last")
    assert lasting(project.rows) == undisturbed(run_grid, asked)


@pytest.mark.timeout(400)
def test_two_processes_racing_for_one_grid_agree(
    project: Project, run_grid: Callable[..., GridRun], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {
        "train_steps": 5, "seed": 502, "steps": [2, 4], "etas": [0.0, 1.0], "n_images": 25,
        "shard_size": 10, "features": "pixels",
    }  # fmt: skip
    racing = [project.start(*words(asked), tag=f"racing-{i}") for i in (1, 2)]
    for process in racing:
        said = process.wait(300)
        assert process.returncode == 0, said
    assert lasting(project.rows) == undisturbed(run_grid, asked)
    assert mlflow_runs(project.data) == {"parents": 1, "children": 4}
    assert not list(project.data.rglob(".*.tmp"))


def mlflow_runs(data: Path) -> dict[str, int]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{data / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fid-grid")
    runs = client.search_runs([experiment.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert len({run.data.tags["ddim.identity"] for run in runs}) == len(runs)
    return {"parents": len(runs) - len(children), "children": len(children)}
