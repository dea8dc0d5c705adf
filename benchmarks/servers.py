"""What measurements and faults share: servers and grids in processes of their own, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

PROJECT = Path(__file__).parents[1]
STARTS_WITHIN = 180.0
SILENT = {
    "PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "true",
    "NO_PROXY": "127.0.0.1,localhost", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip
OURS = ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "DDIM_DATA", "DDIM_TERMINAL")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours, with every place below one folder."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    return inherited | SILENT | {
        "DDIM_DATA": str(folder / "data"), "PREFECT_HOME": str(folder / "prefect-home"),
    } | more  # fmt: skip


def start(log: Path, env: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
    """Starts `python WORDS` from the project, in a group of its own, with a log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *words], env=env, cwd=PROJECT, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Waits until an address answers at all."""
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the server of {url} has ended")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"{url} does not answer")


def prefect_words(port: int) -> tuple[str, ...]:
    return ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))


@contextmanager
def prefect_server(folder: Path, **more: str) -> Iterator[str]:
    """A Prefect server with a database of its own; yields the API's address."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    process = start(folder / "prefect.log", environment(folder, **more), *prefect_words(port))
    try:
        wait_for(f"{api}/health", process)
        yield api
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
