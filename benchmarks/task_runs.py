"""What Prefect's server costs a task: `python -m benchmarks.task_runs`.

CPU seconds of a server while a flow of 100 tasks that do nothing runs against it: task runs written
one by one, as Prefect does by itself, and a second's worth at a time, as `flows.servers.server` has
it. In turn, medians of three.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.servers import environment, free_port, prefect_words, start, stop, wait_for
from flows.servers.server import IN_BATCHES

FLOW = """
from prefect import flow, task

@task
def nothing(i): ...

@flow
def hundred():
    for future in [nothing.submit(i) for i in range(100)]:
        future.result()

hundred()
"""
WAYS: dict[str, dict[str, str]] = {"one by one": {}, "in batches": IN_BATCHES}
TIMES = 3
LAST_EVENTS_SECONDS = 8.0


def server_seconds(settings: dict[str, str]) -> float:
    """Starts a server with these settings on an empty database; returns what 100 tasks cost it."""
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        server = start(folder / "log", environment(folder, **settings), *prefect_words(port))
        try:
            wait_for(f"{api}/health", server)
            before = _seconds(server.pid)
            client = environment(folder, PREFECT_API_URL=api)
            subprocess.run([sys.executable, "-c", FLOW], env=client, check=True)
            time.sleep(LAST_EVENTS_SECONDS)
            return _seconds(server.pid) - before
        finally:
            stop(server)


def _seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    seen: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(TIMES):
        for way, settings in WAYS.items():
            seen[way].append(server_seconds(settings))
            print(f"{way}: {seen[way][-1]:.1f} CPU s of the server for 100 tasks", flush=True)
    one_by_one, in_batches = (statistics.median(seen[way]) for way in WAYS)
    print(f"in batches / one by one: {in_batches / one_by_one:.2f}")


if __name__ == "__main__":
    main()
