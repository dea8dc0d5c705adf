"""Running grids in another process, and asking the Prefect API what a run computed."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from flows.grid.outcome import GridOutcome
from tests.forked import Forked

PROJECT = Path(__file__).parents[2]
CACHED_TASKS = {
    "prepare-data", "train-toy", "train-extractor", "embed-images", "sample-shard", "score-cell",
    "render-report",
}  # fmt: skip
KEPT_IN = ("store", "prefect", "results", "work", "checkpoints")  # below DDIM_DATA
CHANGES_EACH_TIME = ["sample_seconds", "images_per_second", "created_at"]
API_LAGS_AT_MOST = 90.0  # seconds until the last state of a finished run is in the database
ASKED_EVERY = 0.4  # seconds
PAGE = 200  # task runs that the API tells of at once, at most
DRIVER = PROJECT / "tests" / "flows" / "driver.py"


@dataclass(frozen=True)
class GridRun:
    """One finished run of `fid_grid`.

    Attributes:
        state, message: Of the flow run's final state.
        tasks: How many task runs of each name ended in a state of each name.
        result: What the flow returned, where it ran in this process and completed.
        names: What its run and its task runs are called.
    """

    state: str
    message: str
    tasks: Counter[tuple[str, str]]
    result: GridOutcome | None
    names: frozenset[str] = frozenset()

    @property
    def computed(self) -> Counter[str]:
        """Runs of cached tasks whose result did not come from the cache."""
        return Counter(
            {
                name: n
                for (name, state), n in self.tasks.items()
                if name in CACHED_TASKS and state != "Cached"
            }
        )

    @property
    def from_cache(self) -> set[str]:
        return {name for name, state in self.tasks if state == "Cached"}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The grid's rows in the table of this process, whole."""
        from tasks.storage.cell_rows import read_rows

        frame = read_rows().whole().frame
        return plain(frame[frame["cell_digest"].isin(self.result.cells if self.result else [])])


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as values that compare with ==, in the order of their digests."""
    rows = frame.sort_values("cell_digest").to_dict("records")
    return [{str(name): _plain(value) for name, value in row.items()} for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if pd.isna(value) else value


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what no second computation can repeat: when, and how fast."""
    return [{k: v for k, v in row.items() if k not in CHANGES_EACH_TIME} for row in rows]


def told(flow_run_id: UUID, result: GridOutcome | None = None) -> GridRun:
    """What the API knows of a finished run, see `at_rest`."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        runs = at_rest(client, flow_run_id, "track-grid")
        flow_run = client.read_flow_run(flow_run_id)
    assert flow_run.state.is_final(), flow_run.state
    names = frozenset([flow_run.name, *(run.name for run in runs)])
    message = flow_run.state.message or ""
    return GridRun(flow_run.state.name, message, counted(runs), result, names)


def at_rest(client: Any, flow_run_id: UUID, last: str) -> list[Any]:
    """The task runs of a finished flow run. Their states reach the database with a delay: the API
    is asked until all are final, with one of the task `last`, and two answers in a row are equal.
    It is asked seldom, since an answer costs the server as much as half a task run."""
    deadline = time.monotonic() + API_LAGS_AT_MOST
    before: Counter[tuple[str, str]] = Counter()
    while True:
        runs = _task_runs(client, flow_run_id)
        now = counted(runs)
        final = all(state in FINAL for _, state in now) and any(name == last for name, _ in now)
        if final and now == before:
            return runs
        assert time.monotonic() < deadline, f"not final: {now}"
        before = now
        time.sleep(ASKED_EVERY)


# NotReady: what the task waits for has failed, so it never runs.
FINAL = {"Completed", "Cached", "Failed", "Crashed", "NotReady"}


def _task_runs(client: Any, flow_run_id: UUID) -> list[Any]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    only = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
    runs: list[Any] = []
    while True:
        page = client.read_task_runs(flow_run_filter=only, offset=len(runs), limit=PAGE)
        runs += page
        if len(page) < PAGE:
            return runs


def counted(runs: list[Any]) -> Counter[tuple[str, str]]:
    """How many task runs of each name are in a state of each name."""
    return Counter((_task_of(run), run.state_name or "none") for run in runs)


def _task_of(run: Any) -> str:
    """The task's name, by the function that a run's key begins with: `sample-shard`."""
    return str(run.task_key).rsplit("-", 1)[0].replace("_", "-")


def told_of(tag: str) -> GridRun:
    """What the API knows of the one flow run with a tag."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

    tagged = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=tagged)
    assert len(runs) == 1, f"{len(runs)} flow runs have the tag {tag}"
    return told(runs[0].id)


@dataclass(frozen=True)
class Project:
    """The three packages in a folder that processes run from, with a DDIM_DATA of their own."""

    folder: Path
    data: Path

    @property
    def environment(self) -> dict[str, str]:
        """Ours, but for what `tasks` has set from our DDIM_DATA."""
        ours = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        return {**ours, "DDIM_DATA": str(self.data)}

    def start(self, *words: str, tag: str) -> Forked:
        said = self.data.with_name(f"{tag}.log")
        return Forked(DRIVER, (tag, *words), self.folder, self.environment, said)

    def grid(self, *words: str, tag: str) -> GridRun:
        """Runs a grid to its end and says what it computed."""
        process = self.start(*words, tag=tag)
        said = process.wait(300)
        assert process.returncode == 0, said
        return told_of(tag)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table below this DDIM_DATA, as an outsider reads it."""
        return plain(pd.read_parquet(self.data / "results" / "cells"))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replaces the one place where `old` stands in a file."""
        path = self.folder / file
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        path.write_text(text.replace(old, new))
