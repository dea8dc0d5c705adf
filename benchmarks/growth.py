"""How time and memory grow with S, cells, N, d and workers: the first part of docs/scaling.md.

    python -m benchmarks.growth measure [SERIES ...]   # ten minutes; all series if none is named
    python -m benchmarks.growth                        # the table and docs/images/growth.png

Each point is a process of its own, whose peak memory is the operating system's. `S`, `cells`, `N`
and `workers` are whole grids on the demo's toy with all that cells share already made, timed from
the start of the flow to its report; `d` is the score of 5,000 images alone. An exponent is the
slope of a straight line through the logarithms of all points of a series.
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
from typing import Any

import numpy as np

from benchmarks.runners import prepared
from benchmarks.servers import PROJECT, environment, prefect_server

RECORD = Path(__file__).with_name("growth.json")
PICTURE = PROJECT / "docs" / "images" / "growth.png"
SERIES: dict[str, list[int]] = {
    "S": [5, 10, 20, 50, 100, 200],
    "cells": [1, 2, 4, 8, 16, 32],
    "N": [1000, 2000, 5000, 10_000, 20_000, 50_000],
    "workers": [1, 2, 4],
    "d": [64, 128, 256, 512, 1024, 2048],
}
MEANS = {
    "S": "1 cell, N = 1,024, one worker",
    "cells": "S = 5, N = 256 each, two workers",
    "N": "1 cell, S = 5, shards of 2,048, two workers",
    "workers": "8 cells, S = 20, N = 512 each",
    "d": "the score alone: 5,000 images against 5,000, one thread",
}
GRID = """
import json, resource, sys, time
from flows.fid_grid import fid_grid
began = time.perf_counter()
fid_grid(**json.loads(sys.argv[1]))
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"seconds": round(seconds, 2), "megabytes": round(peak)}))
"""
SCORE = """
import json, resource, sys, time
import numpy as np
from ddim_core.scores.cell_score import ScoreReference, score_features
d = int(sys.argv[1])
def shards(seed):
    stream = np.random.default_rng(seed)
    return [stream.standard_normal((1000, d), dtype=np.float32) for _ in range(5)]
reference, made = ScoreReference.of(np.concatenate(shards(0))), shards(1)
began = time.perf_counter()
score_features(made, reference)
seconds = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
print(json.dumps({"seconds": round(seconds, 3), "megabytes": round(peak)}))
"""


def grid_of(series: str, value: int) -> dict[str, Any]:
    """The parameters of the grid that is a point of a series."""
    asked: dict[str, Any] = {"sigma_hat": False, "etas": [0.0], "matrix_images": 0}
    match series:
        case "S":
            return asked | {"steps": [value], "n_images": 1024, "workers": 1}
        case "cells":
            etas = [round(i / 40, 3) for i in range(value)]
            return asked | {"steps": [5], "etas": etas, "n_images": 256, "workers": 2}
        case "N":
            return asked | {"steps": [5], "n_images": value, "workers": 2}
        case _:
            etas = [i / 10 for i in range(8)]
            return asked | {"steps": [20], "etas": etas, "n_images": 512, "workers": value}


def measure(names: list[str]) -> None:
    """Measures series, and puts them into the record in place of older ones."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"series": {}}
    record["machine"] = f"{os.cpu_count()} cores, {platform.machine()}"
    with tempfile.TemporaryDirectory() as name, prefect_server(Path(name) / "server") as api:
        for series in names:
            points = [{"x": x, **point(series, x, Path(name), api)} for x in SERIES[series]]
            date = datetime.now(UTC).date().isoformat()
            record["series"][series] = {"date": date, "points": points}
            RECORD.write_text(json.dumps(record, indent=1) + "\n")


def point(series: str, value: int, scratch: Path, api: str) -> dict[str, Any]:
    """Measures one point in a process of its own."""
    folder = scratch / f"{series}-{value}"
    if series == "d":
        folder.mkdir()
        words = ["-c", SCORE, str(value)]
    else:
        shutil.copytree(prepared(api), folder)
        words = ["-c", GRID, json.dumps({"train_steps": 500, **grid_of(series, value)})]
    done = subprocess.run(
        [sys.executable, *words], cwd=PROJECT, text=True, stdout=subprocess.PIPE, check=True,
        env=environment(folder, PREFECT_API_URL=api, PYTHONPATH=str(PROJECT)),
    )  # fmt: skip
    shutil.rmtree(folder)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(series, value, found, flush=True)
    return found


def exponents(points: list[dict[str, Any]], of: str) -> tuple[float, float]:
    """The slope over the whole series, and that between its last two points."""
    x, y = (np.log([point[name] for point in points]) for name in ("x", of))
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    return float(np.polyfit(x, y, 1)[0]), float(last)


def table(record: dict[str, Any]) -> str:
    """Markdown, a line a series."""
    lines = [
        "| against | of | from, to | seconds | exponent (last two) | MB | exponent (last two) |",
        "|---|---|---|---|---|---|---|",
    ]
    for series, found in record["series"].items():
        points = found["points"]
        first, last = points[0], points[-1]
        cells = [series, MEANS[series], f"{first['x']:,} to {last['x']:,}"]
        for of in ("seconds", "megabytes"):
            slope, end = exponents(points, of)
            cells += [f"{first[of]:,} to {last[of]:,}", f"{slope:.2f} ({end:.2f})"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(record: dict[str, Any]) -> None:
    """Time above, memory below, a column a series, with the fitted lines."""
    import matplotlib.pyplot as plt

    names = list(record["series"])
    figure, axes = plt.subplots(2, len(names), figsize=(3.1 * len(names), 5.6), squeeze=False)
    for column, series in enumerate(names):
        points = record["series"][series]["points"]
        x = np.array([point["x"] for point in points], dtype=float)
        for row, (of, unit) in enumerate((("seconds", "s"), ("megabytes", "MB"))):
            y = np.array([point[of] for point in points], dtype=float)
            slope, level = np.polyfit(np.log(x), np.log(y), 1)
            axis = axes[row][column]
            axis.loglog(x, y, "o", color="tab:blue")
            axis.loglog(x, np.exp(level) * x**slope, "--", color="grey")
            axis.set_title(f"{of} against {series}: exponent {slope:.2f}", fontsize=8)
            axis.set_ylim(y.min() / 2, y.max() * 2)
            axis.set_xlabel(series)
            if series == "workers":
                axis.set_xticks(x, [f"{value:.0f}" for value in x])
                axis.xaxis.set_minor_formatter("")
            axis.set_ylabel(unit)
            axis.grid(True, which="both", alpha=0.2)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2:] or list(SERIES))
    else:
        saved = json.loads(RECORD.read_text())
        draw(saved)
        print(table(saved))
