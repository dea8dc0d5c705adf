"""Running grids, in this process or another, and asking the Prefect API what they computed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pytest

PROJECT = Path(__file__).parents[2]
CHANGES_EACH_TIME = ["sample_seconds", "images_per_second", "created_at"]
# Runs a command of `ddim` from the folder it is started in, tagged so that its run can be found.
DRIVER = """
import sys, pathlib
from prefect import tags
import ddim_core, tasks, flows
here = pathlib.Path.cwd()
for package in (ddim_core, tasks, flows):
    assert pathlib.Path(package.__file__).parent.parent == here, package.__file__
from flows.cli import main
with tags(sys.argv.pop(1)):
    main()
"""


@dataclass(frozen=True)
class GridRun:
    """One finished run of `fid_grid` as the Prefect API tells it.

    Attributes:
        tasks: How many task runs of each name ended in a state of each name.
        result: What the flow returned, where it ran in this process and completed.
        message: The message of the flow run's final state.
    """

    state: str
    tasks: Counter[tuple[str, str]]
    result: dict[str, Any]
    message: str

    @property
    def computed(self) -> Counter[str]:
        """Runs of the cached tasks that did not come from the cache."""
        cached = {name for name, _ in self.tasks} & CACHED_TASKS
        return Counter(
            {name: n for (name, state), n in self.tasks.items() if name in cached
             and state != "Cached"}
        )  # fmt: skip

    @property
    def rows(self) -> pd.DataFrame:
        from tasks.table import read_table

        frame = read_table()
        return frame[frame["cell_digest"].isin(self.result["cells"])].reset_index(drop=True)


CACHED_TASKS = {
    "prepare-data", "train-toy", "train-extractor", "embed-images", "sample-shard", "score-cell",
    "render-report",
}  # fmt: skip


def lasting(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """All of a table that must be equal whenever and however it was made."""
    frame = rows.drop(columns=CHANGES_EACH_TIME).sort_values("cell_digest")
    return [
        {k: list(v) if hasattr(v, "tolist") and getattr(v, "ndim", 0) else v for k, v in r.items()}
        for r in frame.astype(object).where(frame.notna(), None).to_dict("records")
    ]


def table_of(data: Path) -> pd.DataFrame:
    """The rows below another DDIM_DATA, as an outsider reads them."""
    return pd.read_parquet(data / "results" / "cells")


@pytest.fixture(scope="session")
def toy(server: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint folder of a U-Net after some 20 steps: bad, but quick and ours."""
    from ddim_core.checkpoint import save_pipeline
    from ddim_core.images import load_images
    from ddim_core.specs import TrainSpec
    from ddim_core.training import start, train

    spec = TrainSpec(steps=20, seed=5, warmup_steps=5, batch_size=32)
    state = start(spec)
    for _ in train(spec, load_images("digits", "train").images, state):
        pass
    folder = tmp_path_factory.mktemp("checkpoints") / "toy"
    save_pipeline(folder, state.ema, spec.noise, training_step=spec.steps)
    return str(folder)


@pytest.fixture(scope="session")
def run_grid(toy: str) -> Callable[..., GridRun]:
    """Runs a small grid in this process; what is not given is small and quick."""

    def run(workers: int = 2, **asked: Any) -> GridRun:
        from flows.fid_grid import fid_grid
        from flows.runners import with_workers

        small: dict[str, Any] = {
            "checkpoint": toy, "steps": [2], "etas": [0.0, 1.0], "sigma_hat": False,
            "n_images": 25, "shard_size": 10, "features": "pixels",
        }  # fmt: skip
        state = with_workers(fid_grid, workers)(**{**small, **asked}, return_state=True)
        result = state.result() if state.is_completed() else {}
        return _told(state.state_details.flow_run_id, result)

    return run


def _told(flow_run_id: UUID, result: dict[str, Any]) -> GridRun:
    """Asks the API until all task runs are final: their states arrive there with a delay."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    deadline = time.monotonic() + 90
    seen: list[Counter[tuple[str, str]]] = []
    with get_client(sync_client=True) as client:
        while True:
            runs = []
            while page := client.read_task_runs(
                flow_run_filter=only, offset=len(runs), limit=200
            ):
                runs += page
            tasks = Counter(
                (run.name.rsplit("-", 1)[0], run.state_name or "no state") for run in runs
            )
            final = all(run.state is not None and run.state.is_final() for run in runs)
            ended = any(name == "track-grid" for name, _ in tasks)
            seen.append(tasks)
            settled = len(seen) > 3 and seen[-1] == seen[-2] == seen[-3]
            flow_run = client.read_flow_run(flow_run_id)
            flow_ended = flow_run.state is not None and flow_run.state.is_final()
            if runs and final and ended and settled and flow_ended:
                state = flow_run.state
                return GridRun(state.name or "", tasks, result, state.message or "")
            assert time.monotonic() < deadline, f"task runs do not become final: {tasks}"
            time.sleep(0.25)


@dataclass(frozen=True)
class Project:
    """A folder with the three packages, to be run from, and perhaps edited."""

    folder: Path
    data: Path
    env: dict[str, str]

    def command(self, *words: str, tag: str = "untagged") -> list[str]:
        return [sys.executable, "-c", DRIVER, tag, *words]

    def start(self, *words: str, tag: str = "untagged") -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*words, tag=tag), cwd=self.folder, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, tag: str = "untagged") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words, tag=tag), cwd=self.folder, env=self.env, text=True,
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip

    def grid(self, *words: str, tag: str) -> GridRun:
        """Runs a grid to its end and says what it computed."""
        done = self.run("grid", *words, tag=tag)
        assert done.returncode == 0, done.stderr[-3000:]
        return told_of(tag)

    def edit(self, file: str, old: str, new: str) -> None:
        """Replaces the one place where `old` stands in a file."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))


def told_of(tag: str) -> GridRun:
    """What the API knows of the one flow run with a tag."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
        )
    assert len(runs) == 1, f"{len(runs)} flow runs have the tag {tag}"
    return _told(runs[0].id, {})


def environment(data: Path) -> dict[str, str]:
    """This process's environment for another process with a DDIM_DATA of its own."""
    ours = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return {**ours, "DDIM_DATA": str(data), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def project(tmp_path: Path, server: str) -> Callable[[str], Project]:
    """Makes a Project on the real source with a DDIM_DATA of its own, by name."""

    def make(name: str) -> Project:
        data = tmp_path / name
        return Project(PROJECT, data, environment(data))

    return make


@pytest.fixture(scope="session")
def copied_project(server: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the source that may be edited, with a DDIM_DATA of its own."""
    root = tmp_path_factory.mktemp("copied")
    for package in ("ddim_core", "tasks", "flows"):
        shutil.copytree(
            PROJECT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(PROJECT / "pyproject.toml", root)
    data = root / "data"
    return Project(root, data, {**environment(data), "PYTHONDONTWRITEBYTECODE": "1"})
