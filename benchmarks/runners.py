"""The demo's grid, with few images, on every task runner with one worker and with two.

    python -m benchmarks.runners [N_IMAGES]

Checks that the rows are equal, and appends the seconds and the ratio of one worker to two to
benchmarks/runners.json. Each grid runs in a process of its own, in a copy of one DDIM_DATA that
has the model, the extractor and the reference features, so that only cells are computed; the
seconds are those of the flow, with the start of its workers.
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

RECORDS = Path(__file__).with_name("runners.json")
RUNNERS = ("threads", "processes", "dask", "ray")
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
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(asked)], env=env, cwd=PROJECT, text=True,
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    return float(done.stdout.rsplit("seconds", 1)[1])


def rows(folder: Path) -> pd.DataFrame:
    """The table's lasting columns, as an outsider reads them."""
    frame = pd.read_parquet(folder / "data" / "results" / "cells")
    return frame.drop(columns=CHANGES_EACH_TIME).sort_values("cell_digest", ignore_index=True)


def main(n_images: int) -> None:
    asked = {"n_images": n_images, "shard_size": max(n_images // 2, 2), "train_steps": 500}
    with tempfile.TemporaryDirectory() as name, prefect_server(Path(name) / "server") as api:
        warm = Path(name) / "warm"
        warm.mkdir()
        run(warm, api, **{**asked, "steps": [2], "etas": [0.0], "sigma_hat": False})
        shutil.rmtree(warm / "data" / "results")
        seconds: dict[str, list[float]] = {}
        reference = None
        for runner in RUNNERS:
            for workers in (1, 2):
                folder = Path(name) / f"{runner}-{workers}"
                shutil.copytree(warm, folder)
                took = run(folder, api, **asked, runner=runner, workers=workers)
                seconds.setdefault(runner, []).append(round(took, 1))
                table = rows(folder)
                reference = table if reference is None else reference
                pd.testing.assert_frame_equal(table, reference, check_exact=True)
                print(
                    f"{runner}, {workers} workers: {took:.1f} s, {len(table)} equal rows",
                    flush=True,
                )
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "n_images": n_images,
        "cells": 0 if reference is None else len(reference),
        "rows": "equal",
        "seconds of one worker and of two": seconds,
        "one worker / two": {runner: round(a / b, 2) for runner, (a, b) in seconds.items()},
    }
    history = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    RECORDS.write_text(json.dumps([*history, record], indent=1) + "\n")
    print(json.dumps(record["one worker / two"]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
