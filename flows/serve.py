"""`make serve`: Prefect, MLflow, a worker and all deployments on this machine; Ctrl-C stops all.

The servers have no passwords, so they listen on loopback; DDIM_HOST names another address, such
as 0.0.0.0 behind a firewall.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

from tasks.places import local_dir

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
POOL = "ddim"
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 180
STOP_SECONDS = 15  # for all of them together; an idle worker would take half a minute


def main() -> int:
    """Starts everything, says where it is, and waits; returns the exit code."""
    # A supervisor's stop is a Ctrl-C; and what a shell starts in the background ignores SIGINT,
    # and so would all that is started here.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.default_int_handler)
    host = os.environ.get("DDIM_HOST") or LOOPBACK
    reached_at = LOOPBACK if host in EVERYWHERE else host
    prefect_port = os.environ.get("DDIM_PREFECT_PORT", "4200")
    mlflow_port = os.environ.get("DDIM_MLFLOW_PORT", "5000")
    api, mlflow = f"http://{reached_at}:{prefect_port}/api", f"http://{reached_at}:{mlflow_port}"
    database = os.environ["MLFLOW_TRACKING_URI"]
    if database.startswith("http"):  # of a terminal that was pointed at an earlier `make serve`
        database = f"sqlite:///{local_dir('mlflow.db')}"
    for port in (prefect_port, mlflow_port):
        if _is_taken(reached_at, int(port)):
            print(
                f"serve: port {port} is taken; choose with DDIM_PREFECT_PORT, DDIM_MLFLOW_PORT",
                file=sys.stderr,
            )
            return 1
    os.environ["PREFECT_API_URL"] = api
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "2")  # a run starts soon after its call
    local_dir("incoming").mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_start("prefect", "server", "start", "--host", host, "--port", prefect_port))
        started.append(
            _start(
                *("mlflow", "server", "--host", host, "--port", mlflow_port),
                *("--backend-store-uri", database),
                *("--artifacts-destination", local_dir("mlartifacts").as_uri()),
            )
        )
        _wait_for(f"{api}/health", started)
        _wait_for(f"{mlflow}/health", started)
        os.environ["MLFLOW_TRACKING_URI"] = mlflow
        _run("prefect", "work-pool", "create", POOL, "--type", "process", "--overwrite")
        _run("prefect", "--no-prompt", "deploy", "--all")
        started.append(_start("prefect", "worker", "start", "--pool", POOL))
        every = os.environ.get("DDIM_WATCH_SECONDS", "60")
        started.append(_start("ddim", "watch", "--as-deployed", "--every", every))
        watched = list(started)
        started.append(_start("ddim", "guard"))  # ends by itself
        print(_where(api, mlflow), flush=True)
        if host != LOOPBACK:
            print(f"serve: anyone who reaches {host} can run flows and read results", flush=True)
        while all(process.poll() is None for process in watched):
            time.sleep(0.5)
        print("a server has ended by itself; stopping the others", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    except (RuntimeError, subprocess.CalledProcessError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    finally:
        _stop(started)


def _is_taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _where(api: str, mlflow: str) -> str:
    ui = api.removesuffix("/api")
    return f"""
Prefect  {ui}
MLflow   {mlflow}
In another terminal:
  export PREFECT_API_URL={api} MLFLOW_TRACKING_URI={mlflow}
  .venv/bin/prefect deployment run fid-grid/fid-grid -p steps='[10,20]' -p n_images=200
A checkpoint that appears in {os.environ.get("DDIM_WATCH") or local_dir("incoming")} is scored and
judged by itself within about a minute; `ddim announce PATH` has one scored at once.
Ctrl-C stops all of it.
"""


def _start(*command: str) -> subprocess.Popen[bytes]:
    """Starts a process in a group of its own, so that Ctrl-C reaches us first; logs to a file."""
    log_dir = local_dir("logs")
    log_dir.mkdir(parents=True, exist_ok=True)
    with (log_dir / f"{command[0]}-{command[1]}.log").open("ab") as log:
        return subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _run(*command: str) -> None:
    subprocess.run([str(BIN / command[0]), *command[1:]], check=True, stdout=subprocess.DEVNULL)


def _wait_for(url: str, started: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        for process in started:
            if process.poll() is not None:
                raise RuntimeError(
                    f"a server has ended (is its port taken? DDIM_PREFECT_PORT and "
                    f"DDIM_MLFLOW_PORT choose others); see {local_dir('logs')}"
                )
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise RuntimeError(f"{url} did not answer in {PATIENCE_SECONDS} s; see {local_dir('logs')}")


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    """Ends the processes, the worker first, each with all it has started."""
    for process in reversed(started):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in started:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
