"""What tuning buys on the small models: one `ddim tune` after another, and what their rows say.

    python -m benchmarks.tuning FOLDER digits [SEEDS]   # 5 trainings of the demo's model
    python -m benchmarks.tuning FOLDER fid [SEEDS]      # the same, by FID
    python -m benchmarks.tuning FOLDER flow             # the same digits, learned by flow matching
    python -m benchmarks.tuning FOLDER flow-fid         # these by FID
    python -m benchmarks.tuning FOLDER base             # the base of 16 pixels, guided
    python -m benchmarks.tuning FOLDER base-32          # the embedded one, of 32
    python -m benchmarks.tuning FOLDER base-32-fid      # that by FID, ends and rho alone, and
                                                        # between which levels to guide
    python -m benchmarks.tuning FOLDER guided           # digits with classes, by FID, likewise

Appends to benchmarks/tuning.json, for each training seed, scale of guidance and number of calls:
FID of the tuned settings, of the model's own long run, of the stock setting of as many calls, and
how many calls the stock settings and the plain first-order one need for the FID of the best tuned
one. FOLDER is the DDIM_DATA; what it holds is not computed again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.base_samplers import BASE, write
from ddim_core.text2image.embedded import embedded_base

RECORDS = Path(__file__).with_name("tuning.json")
TUNED = re.compile(r"^(\S+\[\S+\]) \(guidance ([\d.]+)(?:@\S+)?\): ", re.MULTILINE)
CASES: dict[str, dict[str, Any]] = {
    "digits": {
        "samplers": "dpmpp_2m?solver_type=heun", "calls": "3,4,5", "distance": "features",
        "stock": "ddim,dpmpp_2m,unipc", "stock-steps": "6,7,8,9,10,20,100", "n-images": 2048,
    },
    "fid": {
        "samplers": "dpmpp_2m?solver_type=heun", "calls": "3,4,5", "distance": "fid",
        "stock": "ddim,dpmpp_2m,unipc", "stock-steps": "6,7,8,9,10,12,16,20,100", "n-images": 2048,
    },
    "flow": {
        "objective": "flow", "samplers": "unipc,flow_euler", "calls": 4, "distance": "features",
        "stock": "unipc,flow_euler", "stock-steps": "6,7,8,10,20,100", "n-images": 2048,
    },
    "flow-fid": {
        "objective": "flow", "samplers": "unipc", "calls": "3,4,5", "distance": "fid",
        "stock": "unipc,flow_euler", "stock-steps": "6,7,8,9,10,12,16,20,100", "n-images": 2048,
    },
    "base": {
        "checkpoint": BASE, "features": "classifier", "guidance": "1,2,4", "tuning-images": 32,
        "long-steps": 64, "samplers": "dpmpp_2m", "calls": 4, "stock": "own,dpmpp_2m,unipc",
        "stock-steps": "6,8,10,64", "n-images": 192, "shard-size": 96,
    },
    "base-32": {
        "checkpoint": embedded_base(), "features": "classifier", "distance": "features",
        "guidance": "1,2,4", "tuning-images": 32, "long-steps": 48, "samplers": "dpmpp_2m",
        "calls": 4, "stock": "dpmpp_2m,unipc", "stock-steps": "6,8,48", "n-images": 192,
        "shard-size": 96,
    },
    "base-32-fid": {
        "checkpoint": embedded_base(), "features": "classifier", "distance": "fid",
        "search": "family", "guidance": "1,2,4", "tuning-images": 256, "long-steps": 16,
        "guidance-interval": "search", "samplers": "dpmpp_2m", "calls": 4,
        "stock": "dpmpp_2m,unipc", "stock-steps": "8,16",
        "n-images": 1216, "shard-size": 152,
    },
    "guided": {
        "class-conditional": True, "guidance": "1,2,4", "guidance-interval": "search",
        "samplers": "dpmpp_2m?solver_type=heun", "calls": 4, "distance": "fid",
        "stock": "ddim,dpmpp_2m,unipc", "stock-steps": "3,6,10,20", "n-images": 1024,
    },
}  # fmt: skip
RESOLUTIONS = {"base": 16, "base-32": 32, "base-32-fid": 32}
PLAIN = ("ddim", "own", "flow_euler")


def run(folder: Path, case: str, seed: int) -> list[dict[str, Any]]:
    """Tunes a model of a training seed; returns what its rows say, a record a scale of guidance."""
    asked = {"seed": seed, **CASES[case]}
    if case in RESOLUTIONS:
        write(folder / case, RESOLUTIONS[case])
        asked |= {"dataset": folder / case / "pictures", "prompts": folder / case / "prompts.txt"}
    options = [
        word
        for name, value in asked.items()
        for word in ((f"--{name}",) if value is True else (f"--{name}", str(value)))
    ]
    command = [sys.executable, "-m", "flows.cli.entry", "tune", *options]
    env = {**os.environ, "DDIM_DATA": str(folder / case)}
    began = time.perf_counter()
    done = subprocess.run(command, check=True, env=env, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    print(done.stdout, flush=True)
    shown = subprocess.run(
        [sys.executable, "-m", "flows.cli.entry", "table", "--json"],
        check=True, env=env, capture_output=True, text=True,
    )  # fmt: skip
    rows = [row for row in json.loads(shown.stdout) if row["seed"] == seed]
    found: dict[tuple[float, int], list[str]] = {}
    for sampler, scale in TUNED.findall(done.stdout):
        calls = min(row["nfe"] for row in rows if row["sampler"] == sampler
                    and row["guidance_scale"] == float(scale))  # fmt: skip
        found.setdefault((float(scale), calls), []).append(sampler)
    return [
        {"case": case, "seed": seed, "guidance": scale, "calls": calls, "seconds": round(seconds),
         "at": datetime.now(UTC).isoformat(timespec="seconds"),
         **read([row for row in rows if row["guidance_scale"] == scale], names),
         "said": [line for line in done.stdout.splitlines()
                  if line.startswith("S = ") and ", tuned" in line
                  and f"At {calls} network calls" in line
                  and re.findall(r"tuned \(guidance (\S+?)[ )]", line)
                  == [f"{scale:g}"] * (scale != 1.0)]}
        for (scale, calls), names in found.items()
    ]  # fmt: skip


def read(rows: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """What the rows of one model at one scale of guidance say.

    Args:
        rows: They.
        names: The samplers with the lists that were tuned for it.
    """
    stock = [row for row in rows if "[" not in row["sampler"]]
    tuned = [row for row in rows if row["sampler"] in names]
    best = min(tuned, key=lambda row: row["fid"])
    longest = max(row["steps"] for row in stock)
    long = min((row for row in stock if row["steps"] == longest), key=lambda row: row["fid"])
    plain = [row for row in stock if row["sampler"] in PLAIN]
    as_dear = min(row["nfe"] for row in stock if row["nfe"] >= best["nfe"])
    rival = min((row for row in stock if row["nfe"] == as_dear), key=lambda row: row["fid"])
    return {
        "tuned": {row["sampler"]: _shown(row) for row in tuned},
        "rival": {f"{rival['sampler']} S={rival['steps']}": _shown(rival)},
        "long": {f"{long['sampler']} S={long['steps']}": _shown(long)},
        "of_long": round(best["fid"] / long["fid"], 3),
        "calls_stock": _calls(stock, best["fid"]),
        "calls_plain": _calls(plain, best["fid"]),
    }


def _calls(rows: list[dict[str, Any]], fid: float) -> int | None:
    """The fewest network calls with which one of them has such a FID; None if none has."""
    return min((row["nfe"] for row in rows if row["fid"] <= fid), default=None)


def _shown(row: dict[str, Any]) -> list[float]:
    return [round(row[name], 3) for name in ("fid", "fid_low", "fid_high")]


def main() -> int:
    folder, case = Path(sys.argv[1]), sys.argv[2]
    seeds = (int(sys.argv[3]) if len(sys.argv) > 3 else 5) if case in ("digits", "fid") else 1
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    for seed in range(seeds):
        found = run(folder, case, seed)
        records = [one for one in records if (one["case"], one["seed"]) != (case, seed)] + found
        RECORDS.write_text(json.dumps(records, indent=1) + "\n")
        print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
