"""The demo's grid, with few images, on task runners with one worker and with two.

    python -m benchmarks.runners prepare                     # a model, an extractor, the reference
    python -m benchmarks.runners [N_IMAGES] [RUNNER ...]     # 256, and all four, if not said

Checks that all rows are equal, and appends the seconds and the ratio of one worker to two to
benchmarks/runners.json. Each grid has a process of its own and a copy of the prepared DDIM_DATA,
so that only cells are computed; the seconds are those of the flow, with the start of its workers.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from benchmarks.servers import PROJECT, environment, prefect_server
from ddim_core.common.digest import code_digest

RECORDS = Path(__file__).with_name("runners.json")
RUNNERS = ("threads", "processes", "dask", "ray")
N_IMAGES = 256  # a shard a cell; 20 cells of 5 to 50 steps: half a minute of drawing on one core
CHANGES_EACH_TIME = ["sample_seconds", "images_per_second", "created_at"]
GRID = """
import json, sys, time
from flows.fid_grid import fid_grid
if __name__ == "__main__":
    began = time.perf_counter()
    fid_grid(**json.loads(sys.argv[1]))
    print("seconds", time.perf_counter() - began)
"""


def run(folder: Path, api: str, **asked: object) -> float:
    """Runs a grid in a process of its own; returns the flow's seconds."""
    script = folder / "grid.py"  # a file, since workers of their own import the main module again
    script.write_text(GRID)
    env = environment(folder, PREFECT_API_URL=api, PYTHONPATH=str(PROJECT))
    every = {"train_steps": 500}
    done = subprocess.run(
        [sys.executable, str(script), json.dumps({**every, **asked})], env=env, cwd=PROJECT,
        text=True, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return float(done.stdout.rsplit("seconds", 1)[1])


def rows(folder: Path) -> pd.DataFrame:
    """The table's lasting columns, as an outsider reads them."""
    frame = pd.read_parquet(folder / "data" / "results" / "cells")
    return frame.drop(columns=CHANGES_EACH_TIME).sort_values("cell_digest", ignore_index=True)


def prepared(api: str) -> Path:
    """A DDIM_DATA with all that cells share; kept while the code stays the same."""
    warm = Path(tempfile.gettempdir(), f"ddim-runners-{code_digest('tasks.sampling.native')[:16]}")
    if not (warm / "done").exists():
        warm.mkdir(exist_ok=True)
        run(warm, api, steps=[2], etas=[0.0], sigma_hat=False, n_images=16)
        shutil.rmtree(warm / "data" / "results")
        (warm / "done").touch()
    return warm


def measure(names: list[str], n_images: int, scratch: Path, api: str) -> dict[str, list[float]]:
    """Runs the grid on each runner with one worker and with two; returns the seconds."""
    warm = prepared(api)
    equal_to = warm / f"rows-{n_images}.parquet"  # those of the first run of all
    seconds: dict[str, list[float]] = {}
    for runner in names:
        for workers in (1, 2):
            folder = scratch / f"{runner}-{workers}"
            shutil.copytree(warm, folder)
            grid = {"n_images": n_images, "shard_size": n_images}
            took = run(folder, api, runner=runner, workers=workers, **grid)
            seconds.setdefault(runner, []).append(round(took, 1))
            table = rows(folder)
            if not equal_to.exists():
                table.to_parquet(equal_to)
            reference = pd.read_parquet(equal_to)
            pd.testing.assert_frame_equal(table, reference, check_exact=True)
            print(f"{runner}, {workers} workers: {took:.1f} s, {len(table)} equal rows", flush=True)
    return seconds


def main(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name, prefect_server(Path(name) / "server") as api:
        if words == ["prepare"]:
            print(prepared(api))
            return
        n_images = int(words.pop(0)) if words and words[0].isdigit() else N_IMAGES
        seconds = measure(words or list(RUNNERS), n_images, Path(name), api)
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load before": round(os.getloadavg()[2], 1),
        "n_images": n_images,
        "rows": "equal",
        "seconds of one worker and of two": seconds,
        "one worker / two": {runner: round(a / b, 2) for runner, (a, b) in seconds.items()},
    }
    history = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    RECORDS.write_text(json.dumps([*history, record], indent=1) + "\n")
    print(json.dumps(record["one worker / two"]))


if __name__ == "__main__":
    main(sys.argv[1:])
