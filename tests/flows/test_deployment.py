"""The deployments of prefect.yaml, run as a person would: pool, deploy, worker, run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grids import PROJECT, Project, told
from prefect.client.orchestration import get_client

pytestmark = pytest.mark.timeout(300)
RUN_ENDS_WITHIN = 200.0  # seconds; most of it is the imports of two processes


def prefect(project: Project, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *words], cwd=PROJECT, env=project.environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def worker(project: Project, tmp_path: Path) -> Iterator[None]:
    """A process worker of the pool `ddim`, which a run finds before it is asked for."""
    prefect(project, "work-pool", "create", "ddim", "--type", "process", "--overwrite")
    environment = {**project.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "ddim"],
            cwd=tmp_path, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    yield
    process.terminate()
    try:
        process.wait(5)  # an idle worker takes half a minute to end by itself
    except subprocess.TimeoutExpired:
        process.kill()


def test_deployed_grid_runs_under_a_process_worker(
    project: Project, worker: None, toy: str, tmp_path: Path
) -> None:
    prefect(project, "--no-prompt", "deploy", "--all")
    asked = ["steps=[2,4]", "etas=[0.0]", "sigma_hat=false", "n_images=12", "shard_size=10",
             'features="pixels"', f'checkpoint="{toy}"', "seed=601"]  # fmt: skip
    parameters = [word for each in asked for word in ("-p", each)]
    prefect(project, "deployment", "run", "fid-grid/fid-grid", *parameters)
    with get_client(sync_client=True) as client:
        run = ended_run(client, tmp_path / "worker.log")
        artifacts = {a.key for a in client.read_artifacts() if a.flow_run_id == run.id}
    assert run.state.name == "Completed", run.state.message
    assert told(run.id, {}).tasks["write-row", "Completed"] == 2
    assert sorted((row["steps"], row["seed"], row["n_images"]) for row in project.rows) == [
        (2, 601, 12), (4, 601, 12),
    ]  # fmt: skip
    assert {"fid-grid-table", "fid-grid-report", "fid-grid-progress"} <= artifacts


def ended_run(client: Any, log: Path) -> Any:
    """Waits for the one run of the deployment."""
    deployment = client.read_deployment_by_name("fid-grid/fid-grid")
    deadline = time.monotonic() + RUN_ENDS_WITHIN
    while time.monotonic() < deadline:
        runs = [r for r in client.read_flow_runs() if r.deployment_id == deployment.id]
        assert len(runs) == 1
        if runs[0].state.is_final():
            return runs[0]
        time.sleep(0.5)
    pytest.fail(f"still {runs[0].state}: {os.linesep.join(log.read_text().splitlines()[-20:])}")
