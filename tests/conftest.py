"""The environment of all tests, and one real Prefect server for those that ask for it.

Settings are made here, before anything imports Prefect or `tasks`, which read them at import.
Everything lies in one temporary folder; nothing but loopback is ever spoken to. Under xdist
(`make test` has three workers for two cores, since each waits for servers a third of its time) the
controller makes folder and server for all workers, which are forks of one process that has
imported the libraries of others (`tests/forked.py`); each worker has data of its own. A file's
tests stay with one worker (`--dist=loadfile`): some share what was costly to make, and those of the
guard end each other's runs.
"""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from tests import forked

SERVER_STARTS_WITHIN = 180.0  # seconds; 17 were seen on a quiet machine, 40 on a busy one

SLOW = ("tests/lora/", "tests/flows/")

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if not WORKER:  # xdist's workers inherit what the controller chose
    os.environ["DDIM_TESTS_DIR"] = tempfile.mkdtemp(prefix="ddim-flows-tests-")
SESSION_DIR = Path(os.environ["DDIM_TESTS_DIR"])
EMPTY_DATABASE = SESSION_DIR / "empty.db"
NO_DEFAULTS = SESSION_DIR / "ddim.toml"  # empty; none above the clone counts
# Makes the database, keeps a copy of it while it is empty, and becomes `prefect` WORDS.
SERVE = """
import asyncio, shutil, sys
from pathlib import Path
from prefect.cli import app
from prefect.server.database import provide_database_interface

asyncio.run(provide_database_interface().create_db())
empty = Path(sys.argv.pop(1))
shutil.copyfile("prefect-home/prefect.db", empty.with_suffix(".new"))
empty.with_suffix(".new").rename(empty)
app()
"""


# What Prefect's server looks for every few seconds, or at each event, and no test of the shared
# server has: automations, schedules, workers, late, paused and cancelled runs. The one of
# `test_serve.py` looks for all of it.
WITHOUT = {
    "PREFECT_UI_ENABLED": "0",
    **{
        f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "0"
        for name in ("CANCELLATION_CLEANUP", "CLEANUP_RECONCILER", "FOREMAN", "LATE_RUNS",
                     "PAUSE_EXPIRATIONS", "REPOSSESSOR", "SCHEDULER", "TRIGGERS")
    },
}  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if not WORKER:
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{_free_port()}/api"
API_URL = os.environ["PREFECT_API_URL"]

# What one process has compiled no other has to, among workers, forks and the servers of tests.
sys.dont_write_bytecode = False
for _name in (
    "MLFLOW_TRACKING_URI", "DDIM_TERMINAL", "PREFECT_PROFILE", "PREFECT_API_KEY",
    "PYTHONDONTWRITEBYTECODE",
):  # fmt: skip
    os.environ.pop(_name, None)
os.environ.update(
    {
        "DDIM_DATA": str(SESSION_DIR / WORKER / "data"),
        "DDIM_CONFIG": str(NO_DEFAULTS),
        "PREFECT_HOME": str(SESSION_DIR / "prefect-home"),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        # As `flows.servers.server` starts its own.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        # Threads that spin while they wait make a shared machine 20 times slower; none of it
        # changes a result.
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "NO_PROXY": "127.0.0.1,localhost",
    }
)

# Every client of Prefect's reads all certificates of the machine, 40 ms of work; one is enough for
# servers that are asked without TLS.
ONE_CERTIFICATE = SESSION_DIR / "certificate.pem"
if not WORKER:
    NO_DEFAULTS.touch()
    _first, _end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    ONE_CERTIFICATE.write_text(_first + _end)
os.environ["SSL_CERT_FILE"] = str(ONE_CERTIFICATE)

# A full collection goes through the objects of all imported modules that are not yet frozen.
gc.set_threshold(100_000, 20, 100)

_servers: list[subprocess.Popen[bytes]] = []


def pytest_configure(config: pytest.Config) -> None:
    """Under xdist only the controller starts the server, before it knows who wants it."""
    if getattr(config.option, "numprocesses", None) and not WORKER:
        forked.start(SESSION_DIR / "forks")
        _start_server()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Workers are forks."""
    for spec in specs:
        spec.python = shlex.join([sys.executable, forked.__file__])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The folders whose tests run whole flows come first, so that no worker ends long after all;
    and what needs no server before the rest, which boots meanwhile."""
    places = {folder: place for place, folder in enumerate(SLOW)}
    items.sort(
        key=lambda item: min((n for f, n in places.items() if item.nodeid.startswith(f)), default=9)
    )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts the server early if any test wants it: it boots while the core tests run."""
    gc.collect()
    gc.freeze()  # the modules and the tests stay
    wanted = any("server" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not WORKER and not session.config.option.collectonly:
        _start_server()


def pytest_unconfigure() -> None:
    if WORKER:
        return
    forked.stop()
    for process in _servers:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(SESSION_DIR, ignore_errors=True)


def _start_server() -> None:
    if _servers:
        return
    host, port = API_URL.removeprefix("http://").removesuffix("/api").split(":")
    words = ["server", "start", "--host", host, "--port", port]
    command = [sys.executable, "-c", SERVE, str(EMPTY_DATABASE), *words]
    SESSION_DIR.mkdir(exist_ok=True)
    with (SESSION_DIR / "server.log").open("wb") as log:
        _servers.append(
            subprocess.Popen(
                command, stdout=log, stderr=log, cwd=SESSION_DIR, env={**os.environ, **WITHOUT}
            )
        )


@pytest.fixture(scope="module", autouse=True)
def small_batches(request: pytest.FixtureRequest) -> Iterator[None]:
    """Networks are called as `small_batches` says, but in the tests of just that."""
    from tests.flows.small_batches import SMALL, untraced

    with pytest.MonkeyPatch.context() as patched:
        if "core/networks/" not in request.node.nodeid:
            patched.setattr("ddim_core.networks.denoisers.MAX_BATCH", SMALL)
            patched.setattr("ddim_core.networks.denoisers.UNetModel._trace", untraced)
        yield


@pytest.fixture(scope="session")
def server(mlflow_database: Path) -> str:
    """The API's address of a running Prefect server with a database of its own; and this worker's
    MLflow has its database."""
    _copied(mlflow_database, Path(os.environ["DDIM_DATA"]) / "mlflow.db")
    if not WORKER:
        _start_server()
    deadline = time.monotonic() + SERVER_STARTS_WITHIN
    while not _is_healthy():
        log = (SESSION_DIR / "server.log").read_text(errors="replace")[-2000:]
        assert WORKER or _servers[0].poll() is None, f"the Prefect server ended: {log}"
        assert time.monotonic() < deadline, f"the Prefect server does not answer: {log}"
        time.sleep(0.5)
    return API_URL


@pytest.fixture(scope="session")
def mlflow_database() -> Path:
    """An MLflow database without a run, made once for all workers: it takes 5 s."""
    from filelock import FileLock

    from tasks.storage import places
    from tasks.tracking.database import make_database

    folder = SESSION_DIR / "mlflow"
    with FileLock(SESSION_DIR / "mlflow.lock"), pytest.MonkeyPatch.context() as elsewhere:
        elsewhere.setattr(places, "DATA_URL", str(folder))
        make_database()
    return folder / "mlflow.db"


@pytest.fixture
def fresh_data(server: str, mlflow_database: Path, tmp_path: Path) -> Path:
    """A DDIM_DATA with the databases of its servers, empty: to make them takes these 15 s."""
    data = tmp_path / "data"
    for made, place in (
        (EMPTY_DATABASE, "prefect-home/prefect.db"),
        (mlflow_database, "mlflow.db"),
    ):
        _copied(made, data / place)
    data.chmod(0o700)
    return data


def _copied(made: Path, place: Path) -> None:
    if not place.exists():
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(made, place)
        place.chmod(0o600)


def _is_healthy() -> bool:
    try:
        with urllib.request.urlopen(f"{API_URL}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
