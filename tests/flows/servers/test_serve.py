"""`make serve` on an empty home, as a person uses it: runs a grid, drops checkpoints, stops it."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import PrefectHTTPStatusError
from safetensors.torch import load_file, save_file

from flows.servers.deploy import OURS
from tests import forked
from tests.flows.grids import PROJECT
from tests.flows.strangers import assert_closed_to_strangers, status, tried_by_a_page

pytestmark = pytest.mark.timeout(600)
WITHIN = 240.0  # seconds for any one thing to happen; most of it are the imports of a new process
SERVED_BY = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_HOME", "MLFLOW_TRACKING_URI",
             "PREFECT_SERVER_CORS_ALLOWED_ORIGINS")  # fmt: skip
GRID = "{steps: [2], etas: [0.0, 1.0], sigma_hat: false, n_images: 60, features: pixels}"
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


@dataclass(frozen=True)
class Served:
    """What `make serve` brought up."""

    process: subprocess.Popen[str]
    folder: Path
    data: Path
    api: str
    mlflow: str
    reports: str

    @property
    def incoming(self) -> Path:
        return self.data / "incoming"

    @property
    def auth(self) -> str:
        return (self.data / "prefect-password").read_text()

    def client(self) -> SyncPrefectClient:
        return SyncPrefectClient(self.api, auth_string=self.auth)

    def prefect(self, *words: str) -> None:
        told = {"PREFECT_API_URL": self.api, "PREFECT_API_AUTH_STRING": self.auth}
        environment = {**os.environ, **told}
        code = "import runpy; runpy.run_module('prefect', run_name='__main__', alter_sys=True)"
        done = forked.run([sys.executable, "-c", code, *words], cwd=self.folder, env=environment)
        assert done.returncode == 0, done.stderr

    def runs(self, flow: str) -> list[Any]:
        """The flow runs of a flow that were started, oldest first."""
        with self.client() as client:
            flow_id = client.read_flow_by_name(flow).id if _known(client, flow) else None
            runs = [r for r in client.read_flow_runs() if r.flow_id == flow_id]
        return sorted((r for r in runs if r.start_time), key=lambda r: r.start_time)

    def is_quiet(self) -> bool:
        """Tells whether ten seconds, two looks, left no run of the watch, nor planned one."""
        before = self.looks()
        time.sleep(10.0)
        return self.looks() == before

    def looks(self) -> int:
        with self.client() as client:
            flow_id = client.read_flow_by_name("checkpoint-watch").id
            return sum(run.flow_id == flow_id for run in client.read_flow_runs())

    def artifacts(self) -> set[str]:
        with self.client() as client:
            return {artifact.key for artifact in client.read_artifacts()}


def _known(client: Any, flow: str) -> bool:
    return flow in [known.name for known in client.read_flows()]


def until(what: str, happened: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if result := happened():
            return result
        time.sleep(0.5)
    pytest.fail(f"{what} did not happen in {WITHIN:g} s")


@pytest.fixture
def served(fresh_data: Path, tmp_path: Path) -> Iterator[Served]:
    """`make serve` from a copy of the project whose prefect.yaml watches often, by a small grid."""
    for package in ("ddim_core", "tasks", "flows"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=ignored)
    text = OURS.read_text()
    edits = {
        "&watched_grid {}": f"&watched_grid {GRID}",
        "{grid: *watched_grid, tune: *watched_tune}": (
            "{grid: *watched_grid, tune: *watched_tune, settle_seconds: 0.5}"
        ),
    }
    for old, new in edits.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / "prefect.yaml").write_text(text)
    ports = [_free_port(), _free_port(), _free_port()]
    environment = {k: v for k, v in os.environ.items() if k not in SERVED_BY}
    environment |= {"DDIM_DATA": str(fresh_data)}
    environment |= {"DDIM_WATCH_SECONDS": "4"}
    environment |= {"DDIM_PREFECT_PORT": str(ports[0]), "DDIM_MLFLOW_PORT": str(ports[1])}
    environment |= {"DDIM_REPORTS_PORT": str(ports[2])}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.servers.serve"], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    api, mlflow, reports = (f"http://127.0.0.1:{port}" for port in ports)
    try:
        yield Served(process, tmp_path, fresh_data, f"{api}/api", mlflow, reports)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_open(url: str) -> bool:
    host, port = url.split("/")[2].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def drop(served: Served, source: str, name: str) -> Path:
    """Copies a checkpoint into the watched folder, file by file, as a training loop would."""
    return Path(shutil.copytree(source, served.incoming / name))


def noisy(source: str, folder: Path) -> str:
    """A planted regression: half a standard deviation of noise on every weight."""
    import torch

    shutil.copytree(source, folder)
    weights, generator = load_file(folder / WEIGHTS), torch.Generator().manual_seed(0)
    for name, weight in weights.items():
        if weight.numel() > 1:
            weights[name] += 0.5 * weight.std() * torch.randn(weight.shape, generator=generator)
    save_file(weights, folder / WEIGHTS)
    return str(folder)


def test_served_grids_run_and_dropped_checkpoints_are_scored_and_judged_once(
    served: Served, toy: str, tmp_path: Path
) -> None:
    said = iter(served.process.stdout.readline, "")  # type: ignore[union-attr]
    told = list(iter(lambda: next(said, "it has ended"), "Ctrl-C stops all of it.\n"))
    assert any(f"PREFECT_API_AUTH_STRING={served.auth}" in line for line in told), told
    assert_closed_to_strangers(served.api, served.mlflow, served.auth)
    assert_a_run_can_be_given_no_command(served)
    assert_found_by_ddim_alone(served)
    if shutil.which("chromium"):  # which .ci/run installs
        assert_closed_to_a_page_of_another_origin(served)

    # As a person asks for it; what the watch would ask for, so that its checkpoints are judged
    # against this one.
    words = [
        "steps=[2]",
        "etas=[0.0, 1.0]",
        "sigma_hat=false",
        "n_images=60",
        'features="pixels"',
        f'checkpoint="{toy}"',
    ]
    parameters = [word for each in words for word in ("-p", each)]
    served.prefect("deployment", "run", "fid-grid/fid-grid", *parameters)
    (first,) = until("a grid", lambda: finished(served.runs("fid-grid"), 1))
    assert first.state.name == "Completed", first.state.message
    right = {"Authorization": f"Basic {base64.b64encode(served.auth.encode()).decode()}"}
    assert [status(served.reports + "/"), status(served.reports + "/", **right)] == [401, 200]
    with served.client() as client:
        (shown,) = (a.data for a in client.read_artifacts() if a.key == "fid-grid-report")
    assert f"]({served.reports}/" in str(shown)

    drop(served, noisy(toy, tmp_path / "noisy"), "step-1")
    first, second = until("another grid", lambda: finished(served.runs("fid-grid"), 2))
    assert second.state.name == "Completed", second.state.message
    assert ["checkpoint-watch" in run.tags for run in (first, second)] == [False, True]

    cells = pd.read_parquet(served.data / "results" / "cells")
    assert set(cells["n_images"]) == {60}
    assert sorted(cells["checkpoint"]) == ["step-1", "step-1", "toy", "toy"]
    verdicts = pd.read_parquet(served.data / "results" / "verdicts")
    assert set(verdicts["checkpoint"]) == {"step-1"}
    assert set(verdicts["against"]) == {"toy"}
    assert set(verdicts["verdict"]) == {"worse"}
    assert {
        "verdict",
        "fid-grid-table",
        "fid-grid-progress",
        "checkpoint-watch",
    } <= served.artifacts()
    logged = MlflowClient(served.mlflow).search_runs(
        [MlflowClient(served.mlflow).get_experiment_by_name("fid-grid").experiment_id]
    )
    parents = [run for run in logged if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(run.data.tags.get("ddim.verdict", "none") for run in parents) == [
        "none", "worse",
    ]  # fmt: skip

    drop(served, toy, "as-a-person-had-it")
    drop(served, str(served.incoming / "step-1"), "step-1-again")
    for path in served.incoming.rglob("*"):
        path.touch()
    # All of it is looked at once more; after that there is nothing new, and no run of a look.
    until("a quiet watch", lambda: served.is_quiet())
    assert len(served.runs("fid-grid")) == 2

    assert open_to_others(served.data) == []
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(60) == 130
    assert not (served.data / "serve.json").exists()
    assert not _is_open(served.api)
    assert not _is_open(served.mlflow)


def assert_a_run_can_be_given_no_command(served: Served) -> None:
    with served.client() as client:
        deployment = client.read_deployment_by_name("fid-grid/fid-grid")
        for planted in ({"command": "id"}, {"env": {"PYTHONSTARTUP": "/x"}}, {"env.PATH": "/x"},
                        {"working_dir": "/"}):  # fmt: skip
            with pytest.raises(PrefectHTTPStatusError, match=r"4\d\d"):
                client.create_flow_run_from_deployment(deployment.id, job_variables=planted)


def assert_found_by_ddim_alone(served: Served) -> None:
    """A command in another terminal uses these servers with no export, and no stale note."""
    look = "import os; from flows.servers.server import begin_server; print(begin_server().process)"
    look += "; print(os.environ['PREFECT_API_URL'], os.environ['MLFLOW_TRACKING_URI'])"
    environment = {k: v for k, v in os.environ.items() if k not in SERVED_BY}
    found = subprocess.run(
        [sys.executable, "-c", look], cwd=served.folder, check=True, text=True,
        env={**environment, "DDIM_DATA": str(served.data)}, capture_output=True,
    ).stdout.split()  # fmt: skip
    assert found == ["None", served.api, served.mlflow]


def open_to_others(data: Path) -> list[str]:
    """What others than its owner may read or enter, but for what people dropped."""
    made = [p for p in data.rglob("*") if data / "incoming" not in p.parents]
    return [str(p) for p in [data, *made] if not p.is_symlink() and p.stat().st_mode & 0o077]


def assert_closed_to_a_page_of_another_origin(served: Served) -> None:
    tried = tried_by_a_page(served.api, served.mlflow, served.auth)
    assert len(tried) >= 12
    assert {name: told for name, told in tried.items() if told != "refused"} == {}
    with served.client() as client:
        assert [run for run in client.read_flow_runs() if run.name == "planted"] == []
        assert client.read_automations_by_name("planted") == []
    experiments = MlflowClient(served.mlflow).search_experiments()
    assert "planted" not in {experiment.name for experiment in experiments}


def finished(runs: list[Any], n: int) -> list[Any]:
    """The runs that have ended, once there are n of them; else nothing."""
    ended = [run for run in runs if run.state and run.state.is_final()]
    return ended if len(ended) >= n else []
