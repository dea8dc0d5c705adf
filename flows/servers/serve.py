"""`ddim serve`, `make serve`: Prefect, MLflow, a worker, all deployments, here; Ctrl-C stops all.

They listen on loopback; DDIM_HOST names another address, such as 0.0.0.0 behind a firewall, and
DDIM_HOSTS the names it is called by there. Prefect asks for a password, MLflow has none. Neither
answers to pages of other origins, nor to other names (`tasks.machine.same_origin`).
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from flows.servers.deploy import POOL
from flows.servers.server import (
    LOOPBACK,
    ServerError,
    bound,
    bracketed,
    kept_password,
    noted,
    start_prefect,
    start_server,
    wait_for,
)
from tasks.machine.same_origin import EVERYWHERE
from tasks.storage.places import data_url, default_tracking_uri, is_local, local_dir, require_usable

STOPPED = "stopped; what is finished is kept, run it again to go on"  # as the commands say it
PORTS = (("DDIM_PREFECT_PORT", "4200"), ("DDIM_MLFLOW_PORT", "5000"), ("DDIM_REPORTS_PORT", "4300"))
STOP_SECONDS = 2  # for all of them together, who withstand SIGKILL; a worker would take a minute
TELL_SECONDS = 5.0


def main() -> int:
    """Starts everything, says where it is, and waits; returns the exit code: 128 and its number
    after a signal."""
    # A supervisor's stop is a Ctrl-C; and what a shell starts in the background ignores SIGINT,
    # and so would all that is started here.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, _stopped)
    try:
        require_usable()
    except ValueError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    host = os.environ.get("DDIM_HOST") or LOOPBACK
    reached_at = bracketed(LOOPBACK if host in EVERYWHERE else host)
    sockets = []
    for variable, default in PORTS if is_local() else PORTS[:2]:
        port = os.environ.get(variable) or default
        try:
            sockets.append(bound(host, int(port)))
        except (OSError, ValueError, OverflowError) as error:
            print(
                f"serve: port {port} of {host} is taken or cannot be had ({error}); choose with "
                f"{', '.join(name for name, _ in PORTS)}, DDIM_HOST",
                file=sys.stderr,
            )
            return 1
    print("serve: starting Prefect, MLflow and a worker", flush=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        return _serve(host, reached_at, sockets, started)
    except KeyboardInterrupt as stopped:
        print(STOPPED, file=sys.stderr, flush=True)
        return 128 + int(stopped.args[0])
    except (ServerError, subprocess.CalledProcessError) as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    finally:
        _stop(started)


def _serve(
    host: str,
    reached_at: str,
    sockets: list[socket.socket],
    started: list[subprocess.Popen[bytes]],
) -> int:
    for_prefect, for_mlflow, *for_reports = sockets
    api = f"http://{reached_at}:{for_prefect.getsockname()[1]}/api"
    mlflow = f"http://{reached_at}:{for_mlflow.getsockname()[1]}"
    reports = "".join(f"http://{reached_at}:{s.getsockname()[1]}" for s in for_reports)
    auth = kept_password()
    os.environ |= {"PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": auth}
    os.environ.setdefault("PREFECT_WORKER_QUERY_SECONDS", "2")  # a run starts soon after its call
    database = os.environ["MLFLOW_TRACKING_URI"]
    if database.startswith("http"):  # of a terminal that was pointed at an earlier `make serve`
        database = default_tracking_uri()
    local_dir("incoming").mkdir(parents=True, exist_ok=True)
    with _told():
        process, log = start_prefect(for_prefect, host, auth)
        started.append(process)
        kept = {
            "DDIM_MLFLOW_DATABASE": database,
            "DDIM_MLFLOW_ARTIFACTS": local_dir("mlartifacts").as_uri(),
        }
        started.append(start_server("tasks.tracking.server", for_mlflow, host, kept)[0])
        told = {"DDIM_REPORTS_AUTH": auth}
        for each in for_reports:
            started.append(start_server("flows.servers.reports_server", each, host, told)[0])
        wait_for(f"{api}/health", started, log)
        wait_for(f"{mlflow}/health", started, log)
        if reports:
            wait_for(f"{reports}/health", started, log)
        os.environ |= {"MLFLOW_TRACKING_URI": mlflow, "DDIM_REPORTS_URL": reports}
        deploy = [sys.executable, "-m", "flows.servers.deploy"]
        subprocess.run(deploy, check=True, stdout=subprocess.DEVNULL)
    started.append(_start("prefect-worker", "prefect", "worker", "start", "--pool", POOL))
    every = os.environ.get("DDIM_WATCH_SECONDS", "60")
    look = ("watch", "--as-deployed", "--every", every)
    started.append(_start("ddim-watch", "flows.cli.entry", *look))
    watched = list(started)
    started.append(_start("ddim-guard", "flows.cli.entry", "guard"))  # ends by itself
    with noted(api, auth, mlflow, reports):
        print(_where(api, mlflow, reports, auth), flush=True)
        if host != LOOPBACK:
            print(f"serve: anyone who reaches {host} can read and write in MLflow", flush=True)
        while all(process.poll() is None for process in watched):
            time.sleep(0.5)
    print("a server has ended by itself; stopping the others", file=sys.stderr)
    return 1


def _where(api: str, mlflow: str, reports: str, auth: str) -> str:
    ui = api.removesuffix("/api")
    pages = f"{reports}   (for the same password, to read alone)" if reports else (
        f"lie in {data_url('reports')}; they are served from a local DDIM_DATA alone"
    )  # fmt: skip
    return f"""
Prefect  {ui}   (it asks for: {auth})
MLflow   {mlflow}
Reports  {pages}
`ddim` finds them by itself. For Prefect's own commands, in another terminal:
  export PREFECT_API_URL={api} MLFLOW_TRACKING_URI={mlflow} DDIM_REPORTS_URL={reports}
  export PREFECT_API_AUTH_STRING={shlex.quote(auth)}
  prefect deployment run fid-grid/fid-grid -p steps='[10,20]' -p n_images=200
A checkpoint that appears in {os.environ.get("DDIM_WATCH") or local_dir("incoming")} is scored and
judged by itself within about a minute; `ddim announce PATH` has one scored at once.
Ctrl-C stops all of it.
"""


@contextmanager
def _told() -> Iterator[None]:
    """Says every few seconds that the block goes on."""
    over = threading.Event()
    began = time.monotonic()

    def tell() -> None:
        while not over.wait(TELL_SECONDS):
            print(f"serve: still starting: {time.monotonic() - began:.0f} s", flush=True)

    threading.Thread(target=tell, name="telling", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _stopped(number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _start(name: str, module: str, *words: str) -> subprocess.Popen[bytes]:
    """Starts a module in a process that ends with us, and in a session of its own, so that Ctrl-C
    reaches us first; logs to a file."""
    command = [sys.executable, "-m", "flows.servers.child", str(os.getpid()), module, *words]
    with (local_dir("logs") / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _stop(started: list[subprocess.Popen[bytes]]) -> None:
    """Ends the processes, the worker first, each with all it has started; a second signal ends them
    at once."""
    with suppress(KeyboardInterrupt):
        _ask_to_end(started)
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ask_to_end(started: list[subprocess.Popen[bytes]]) -> None:
    for process in reversed(started):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    deadline = time.monotonic() + STOP_SECONDS
    for process in started:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.05, deadline - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
