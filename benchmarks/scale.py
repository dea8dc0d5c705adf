"""What a large grid costs the engine: on paper, from what sleeping workers show on this machine.

python -m benchmarks.scale measure    # half a minute; writes benchmarks/scale.json
python -m benchmarks.scale card       # three minutes: beside a card at 10,000 images a minute
python -m benchmarks.scale            # the tables of docs/scaling.md, from scale.json
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.servers import (
    PROJECT,
    environment,
    free_port,
    prefect_words,
    start,
    stop,
    wait_for,
)

RECORD = Path(__file__).with_name("scale.json")
TABLES = ("task_run", "task_run_state", "events", "event_resources", "artifact", "log")
LAGS_AT_MOST = 120.0  # seconds
RUNS: tuple[dict[str, Any], ...] = (  # few workers that sleep long, many that sleep short
    {"workers": 10, "cells": 10, "shards": 8, "seconds": 0.5},
    {"workers": 100, "cells": 40, "shards": 8, "seconds": 2.0},
    {"workers": 100, "cells": 40, "shards": 8, "seconds": 0.2},
)
CARD_IMAGES, CARD_SECONDS = 6144, 60.0 / 10_000  # of a cell; a second an image, with its features


def beside_a_card(shard: int) -> str:
    """What the engine costs where a card draws 10,000 images of 32 x 32 a minute, for which
    sleeping stands in, in a grid of two cells, over the card's own time: how long the card is idle
    between its first task and its last, and with the flow's start and end."""
    cells, shards, seconds = 2, CARD_IMAGES // shard, CARD_SECONDS * shard
    asked = {
        "workers": 4, "cells": cells, "shards": shards, "seconds": seconds / 1.1, "device": "cpu:0",
        "shape": (shard, 32, 12, 8),
    }  # fmt: skip
    seen, own = measure([asked])["runs"][0], cells * shards * seconds
    idle, whole = (100.0 * (seen[name] / own - 1.0) for name in ("card", "wall"))
    return f"card idle {idle:.1f} %, with start, last score and end {whole:.1f} % of {own:.0f} s"


def measure(grids: Sequence[dict[str, Any]] = RUNS) -> dict[str, Any]:
    """Runs sleeping grids against a server of their own; returns costs a task."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        api = f"http://127.0.0.1:{port}/api"
        env = environment(folder, PREFECT_API_URL=api)
        server = start(folder / "prefect.log", env, *prefect_words(port))
        try:
            wait_for(f"{api}/health", server)
            runs = [run(folder, env, server.pid, asked) for asked in grids]
        finally:
            stop(server)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "runs": runs,
    }


def run(folder: Path, env: dict[str, str], server: int, asked: dict[str, Any]) -> dict[str, Any]:
    n_tasks = asked["cells"] * (2 * asked["shards"] + 1)
    work = asked["cells"] * (1.1 * asked["shards"] + 0.1) * asked["seconds"]
    rows, cpu = counts(folder), server_seconds(server)
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.sleeping", json.dumps(asked)],
        env=env, cwd=PROJECT, text=True, stdout=subprocess.PIPE, check=True,
    ).stdout  # fmt: skip
    told = json.loads(out.rsplit("measured", 1)[1])
    settled(folder, rows["task_run"] + n_tasks)
    after = counts(folder)
    record = asked | {
        "tasks": n_tasks,
        "wall": told["wall"],
        "card": told["card"],
        "wall over ideal": told["wall"] / (work / asked["workers"]),
        "tasks a second": n_tasks / told["wall"],
        "flow CPU ms a task": 1000 * told["cpu"] / n_tasks,
        "server CPU ms a task": 1000 * (server_seconds(server) - cpu) / n_tasks,
        "flow memory kB a task": told["memory"] / 1000 / n_tasks,
        "database kB a task": (after["bytes"] - rows["bytes"]) / 1000 / n_tasks,
        "rows a task": {t: round((after[t] - rows[t]) / n_tasks, 2) for t in TABLES},
    }
    record = {k: round(v, 2) if isinstance(v, float) else v for k, v in record.items()}
    print(json.dumps(record), flush=True)
    return record


def counts(folder: Path) -> dict[str, int]:
    """Rows of Prefect's tables, and the bytes of its database with what is not folded in yet."""
    path = folder / "prefect-home" / "prefect.db"
    with closing(sqlite3.connect(path, timeout=60)) as database:
        rows = {t: database.execute(f"select count(*) from {t}").fetchone()[0] for t in TABLES}
        pages = database.execute("pragma page_count").fetchone()[0]
        size = database.execute("pragma page_size").fetchone()[0]
    return rows | {"bytes": pages * size}


def settled(folder: Path, task_runs: int) -> None:
    """Waits until the server has written all it was sent: it lags behind a busy flow."""
    deadline, seen = time.monotonic() + LAGS_AT_MOST, [counts(folder)]
    while seen[-1]["task_run"] < task_runs or len(seen) < 4 or seen[-1] != seen[-4]:
        if time.monotonic() > deadline:
            print("the server has not written everything", file=sys.stderr)
            return
        time.sleep(1.5)
        seen.append(counts(folder))


def server_seconds(pid: int) -> float:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


@dataclass(frozen=True)
class Plan:
    """A grid on a fleet: cells of n_images each, drawn at so many forwards a second a GPU."""

    cells: int = 10_000
    n_images: int = 50_000
    steps: int = 50  # on average
    gpus: int = 100
    forwards: float = 5_000.0  # a second a GPU: a small U-Net at 32x32
    pixels: int = 3 * 32 * 32
    features: int = 2048

    def row(self, shard: int, per_task: dict[str, float]) -> list[str]:
        """One line of the table for a shard size."""
        shards = -(-self.n_images // shard)
        tasks = self.cells * (2 * shards + 1)  # sample and embed a shard; score
        hours = self.cells * self.n_images * self.steps / self.forwards / self.gpus / 3600
        rate = tasks / (hours * 3600)
        return [
            f"{shard:,}", f"{shard * self.steps / self.forwards:.0f}", f"{tasks:,}",
            f"{tasks * per_task['events']:,.0f}", f"{tasks * per_task['rows']:,.0f}",
            f"{tasks * per_task['kB'] / 1e6:,.0f}", f"{rate:.1f}",
            f"{100 * rate * per_task['server ms'] / 1000:.0f} %",
            f"{tasks * per_task['memory kB'] / 1e6:.1f}",
            f"{self.cells * shards * 4:,}",
        ]  # fmt: skip


HEADER = ("shard", "s a shard", "tasks", "events", "database rows", "database GB", "tasks/s",
          "of a server core", "flow GB", "objects")  # fmt: skip


def show(record: dict[str, Any]) -> None:
    """Prints the measured costs and the table, as Markdown."""
    heavy = record["runs"][-1]
    rows = heavy["rows a task"]
    per_task = {
        "events": rows["events"], "rows": sum(rows.values()), "kB": heavy["database kB a task"],
        "server ms": heavy["server CPU ms a task"], "memory kB": heavy["flow memory kB a task"],
    }  # fmt: skip
    print(json.dumps(per_task))
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER))
    for shard in (128, 512, 1024, 4096, 10_000, 50_000):
        print("| " + " | ".join(Plan().row(shard, per_task)) + " |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["card"]:
        for size in map(int, sys.argv[2:] or (512, 2048)):
            print(f"beside a card, shards of {size}: {beside_a_card(size)}", flush=True)
    else:
        if sys.argv[1:] == ["measure"]:
            RECORD.write_text(json.dumps(measure(), indent=1) + "\n")
        show(json.loads(RECORD.read_text()))
