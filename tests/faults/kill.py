"""kill -9 in the middle of a grid.

python -m tests.faults.kill flow | worker | prefect | mlflow | postgres
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from mlflow import MlflowClient

from benchmarks.servers import (
    free_port,
    prefect_words,
    start,
    stop,
    wait_for,
)
from tests.faults.harness import (
    N_CELLS,
    N_IMAGES,
    SHARD,
    Place,
    kill,
    places,
    same,
    say,
    wait_until,
)

ROWS_BEFORE = 2
POSTGRES_USER = "postgres"  # its servers refuse to run as root


def flow() -> None:
    with places("flow") as (place, undisturbed):
        process = place.grid()
        wait_until(lambda: place.n_rows >= ROWS_BEFORE, "two rows")
        kill(process)
        kept = place.n_rows
        drawn = place.whole_grid()
        say(f"killed after {kept} rows; the next run drew {drawn} of {N_CELLS * N_IMAGES} images")
        assert drawn <= (N_CELLS - kept) * N_IMAGES
        same(place.rows(), undisturbed)


def worker() -> None:
    """The worker and its flow: the run is found by its missing heartbeats."""
    with places("worker") as (place, undisturbed):
        api = place.more["PREFECT_API_URL"]
        for words in (
            ("work-pool", "create", "ddim", "--type", "process"),
            ("--no-prompt", "deploy", "--all"),
        ):
            subprocess.run(
                [sys.executable, "-m", "prefect", *words], env=place.env, check=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        assert place.ddim("guard").wait(120) == 0, place.last_words()
        with _worker(place) as process:
            lost = _run_deployment(place)
            wait_until(lambda: place.n_rows >= ROWS_BEFORE, "two rows")
            family = [
                *psutil.Process(process.pid).children(recursive=True),
                psutil.Process(process.pid),
            ]
            for one in family:  # the worker's flows are in groups of their own
                one.kill()
        say(f"worker and flow killed after {place.n_rows} rows")
        waited = wait_until(lambda: _state(api, lost) == "Crashed", "the lost run's end")
        say(f"the lost run was ended as Crashed after {waited:.0f} s")
        with _worker(place) as process:
            again = _run_deployment(place)
            wait_until(lambda: _state(api, again) in ("Completed", "Failed", "Crashed"), "the end")
            assert _state(api, again) == "Completed"
            for one in psutil.Process(process.pid).children(recursive=True):
                one.kill()
        same(place.rows(), undisturbed)


def prefect() -> None:
    with places("prefect") as (place, undisturbed):
        port = free_port()
        api = f"http://127.0.0.1:{port}/api"
        place = place.told(PREFECT_API_URL=api, PREFECT_HOME=str(place.folder / "own-home"))
        server = start(place.folder / "prefect.log", place.env, *prefect_words(port))
        wait_for(f"{api}/health", server)
        process = place.grid()
        wait_until(lambda: place.n_rows >= ROWS_BEFORE, "two rows")
        kill(server)
        waited = wait_until(lambda: place.n_rows == N_CELLS, "all rows, without the server")
        say(f"server killed after {ROWS_BEFORE} rows; all {N_CELLS} landed within {waited:.0f} s")
        server = start(place.folder / "prefect.log", place.env, *prefect_words(port))
        wait_for(f"{api}/health", server)
        code = process.wait(400)
        say(f"with the server back the grid ended with exit code {code}: {place.last_words()}")
        say(f"the next run drew {place.whole_grid()} images")
        assert place.ddim("guard").wait(200) == 0
        say(f"ddim guard: {place.last_words()}")
        stop(server)
        same(place.rows(), undisturbed)


def mlflow() -> None:
    with places("mlflow") as (place, undisturbed):
        port = free_port()
        uri = f"http://127.0.0.1:{port}"
        place = place.told(MLFLOW_TRACKING_URI=uri)
        words = _mlflow_words(place.folder, port, f"sqlite:///{place.folder}/mlflow.db")
        server = start(place.folder / "mlflow.log", place.env, *words)
        wait_for(f"{uri}/health", server)
        process = place.grid()
        wait_until(lambda: place.n_rows >= ROWS_BEFORE, "two rows")
        kill(server)
        code = process.wait(400)
        assert code == 0, place.last_words()
        waiting = len(list((place.data / "outbox").glob("*.json")))
        reports = len(list((place.data / "reports").glob("*/index.html")))
        say(f"MLflow killed: the grid ended with exit code {code}, {place.n_rows} rows, {reports} "
            f"report, {waiting} message in the outbox")  # fmt: skip
        assert (place.n_rows, reports, waiting) == (N_CELLS, 1, 1)
        assert place.ddim("track", "--resend").wait(200) == 1, "it is still away"
        server = start(place.folder / "mlflow.log", place.env, *words)
        wait_for(f"{uri}/health", server)
        assert place.ddim("track", "--resend").wait(200) == 0, place.last_words()
        say(f"ddim track --resend: {place.last_words()}")
        _runs_are_in_mlflow(uri)
        stop(server)
        same(place.rows(), undisturbed)


def postgres() -> None:
    """The database of both servers."""
    with places("postgres") as (place, undisturbed), _database(place.folder) as (url, restart):
        ports = free_port(), free_port()
        api, uri = f"http://127.0.0.1:{ports[0]}/api", f"http://127.0.0.1:{ports[1]}"
        connection = f"postgresql+asyncpg://{url}/prefect"
        place = place.told(
            PREFECT_API_URL=api, MLFLOW_TRACKING_URI=uri,
            PREFECT_SERVER_DATABASE_CONNECTION_URL=connection,
        )  # fmt: skip
        servers = [
            start(place.folder / "prefect.log", place.env, *prefect_words(ports[0])),
            start(place.folder / "mlflow.log", place.env,
                  *_mlflow_words(place.folder, ports[1], f"postgresql://{url}/mlflow")),
        ]  # fmt: skip
        wait_for(f"{api}/health", servers[0])
        wait_for(f"{uri}/health", servers[1])
        process = place.grid()
        wait_until(lambda: place.n_rows >= ROWS_BEFORE, "two rows")
        restart()
        code = process.wait(400)
        say(
            f"PostgreSQL killed after {ROWS_BEFORE} rows and started anew: the grid ended with "
            f"exit code {code} and {place.n_rows} rows: {place.last_words()}"
        )
        say(f"the next run drew {place.whole_grid()} images")
        assert place.ddim("track", "--resend").wait(200) == 0, place.last_words()
        _runs_are_in_mlflow(uri)
        for server in servers:
            assert server.poll() is None, "a server has ended with its database"
            stop(server)
        same(place.rows(), undisturbed)


@contextmanager
def _worker(place: Place) -> Iterator[subprocess.Popen[bytes]]:
    env = place.env | {"PREFECT_WORKER_QUERY_SECONDS": "1"}
    process = start(
        place.folder / "worker.log", env, "-m", "prefect", "worker", "start", "--pool", "ddim"
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def _run_deployment(place: Place) -> str:
    """Starts the small grid as a deployment; returns the flow run's id."""
    asked: dict[str, Any] = {
        "checkpoint": str(place.checkpoint), "steps": [20, 50], "etas": [0.0, 0.5, 1.0],
        "sigma_hat": True, "n_images": N_IMAGES, "shard_size": SHARD, "features": "pixels",
        "batch_size": 16, "workers": 1,
    }  # fmt: skip
    script = (
        "import json, sys; from prefect.deployments import run_deployment as run;"
        "print(run('fid-grid/fid-grid', parameters=json.loads(sys.argv[1]), timeout=0).id)"
    )
    return subprocess.run(
        [sys.executable, "-c", script, json.dumps(asked)], env=place.env, check=True, text=True,
        stdout=subprocess.PIPE,
    ).stdout.strip()  # fmt: skip


def _state(api: str, run: str) -> str:
    try:
        return str(httpx.get(f"{api}/flow_runs/{run}", timeout=30).json()["state"]["name"])
    except httpx.HTTPError:
        return "not told"  # a busy server


def _mlflow_words(folder: Path, port: int, database: str) -> tuple[str, ...]:
    return (
        "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts"),
    )  # fmt: skip


def _runs_are_in_mlflow(uri: str) -> None:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fid-grid")
    runs = client.search_runs([experiment.experiment_id])
    states = sorted({run.info.status for run in runs})
    say(f"MLflow has {len(runs)} runs, {', '.join(states)}")
    assert len(runs) == 1 + N_CELLS
    assert states == ["FINISHED"]


@contextmanager
def _database(folder: Path) -> Iterator[tuple[str, Any]]:
    """A PostgreSQL of our own on loopback; yields its address, and what kills and restarts it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    home = Path(f"/tmp/ddim-postgres-{os.getpid()}")
    home.mkdir(mode=0o700)
    shutil.chown(home, POSTGRES_USER, POSTGRES_USER)
    port = free_port()

    def as_postgres(*words: str) -> list[str]:
        return [
            "setpriv",
            f"--reuid={POSTGRES_USER}",
            f"--regid={POSTGRES_USER}",
            "--clear-groups",
            *words,
        ]

    def run(program: str, *words: str) -> None:
        subprocess.run(
            as_postgres(str(programs / program), *words), check=True, cwd=home,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def begin() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            as_postgres(str(programs / "postgres"), "-D", str(home / "db"), "-p", str(port),
                        "-c", "listen_addresses=127.0.0.1", "-k", str(home)),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=home,
        )  # fmt: skip
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL", 60)
        return process

    run("initdb", "-D", str(home / "db"), "--auth=trust", "-U", POSTGRES_USER)
    running = [begin()]

    def restart() -> None:
        family = psutil.Process(running[-1].pid).children(recursive=True)
        os.kill(running[-1].pid, signal.SIGKILL)
        for one in family:
            one.kill()
        running[-1].wait()
        time.sleep(5)
        running.append(begin())

    try:
        for name in ("prefect", "mlflow"):
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", POSTGRES_USER, name)
        yield f"{POSTGRES_USER}@127.0.0.1:{port}", restart
    finally:
        running[-1].send_signal(signal.SIGINT)
        running[-1].wait(30)
        shutil.rmtree(home)


FAULTS = {
    "flow": flow,
    "worker": worker,
    "prefect": prefect,
    "mlflow": mlflow,
    "postgres": postgres,
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
