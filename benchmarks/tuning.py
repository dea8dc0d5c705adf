"""What tuning buys on the small models: one `ddim tune` after another, and what their rows say.

    python -m benchmarks.tuning FOLDER [SEEDS]      # 5: trainings of the demo's digits model

Appends to benchmarks/tuning.json, for each training seed: FID of the tuned settings, of the model's
own long run, of the stock setting of as many calls, and how many calls the stock settings and DDIM
need for the FID of the tuned one. FOLDER is the DDIM_DATA; what it holds is not computed again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).with_name("tuning.json")
LONG = 100  # S of the long run that the FIDs are compared with
TUNED_CALLS = 4
ASKED = {
    "samplers": "dpmpp_2m,ddim", "calls": TUNED_CALLS, "stock": "ddim,dpmpp_2m,unipc,deis",
    "stock-steps": f"5,6,8,10,20,{LONG}", "n-images": 2048,
}  # fmt: skip


def run(folder: Path, seed: int) -> dict[str, Any]:
    """Tunes the toy model of a training seed; returns what its rows say."""
    options = [word for name, value in ASKED.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "flows.cli.entry", "tune", "--seed", str(seed), *options]
    env = {**os.environ, "DDIM_DATA": str(folder)}
    subprocess.run(command, check=True, env=env)
    shown = subprocess.run(
        [sys.executable, "-m", "flows.cli.entry", "table", "--json"],
        check=True, env=env, capture_output=True, text=True,
    )  # fmt: skip
    rows = [row for row in json.loads(shown.stdout) if row["seed"] == seed]
    return read(seed, rows)


def read(seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of one model say."""
    stock = [row for row in rows if "[" not in row["sampler"]]
    tuned = [row for row in rows if "[" in row["sampler"]]
    best = min(tuned, key=lambda row: row["fid"])
    long = min(row["fid"] for row in stock if row["steps"] == LONG)
    ddim = [row for row in stock if row["sampler"] == "ddim"]
    rival = min((row for row in stock if row["nfe"] == best["nfe"]), key=lambda row: row["fid"])
    return {
        "seed": seed,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tuned": {row["sampler"]: _shown(row) for row in tuned},
        "rival": {f"{rival['sampler']} S={rival['steps']}": _shown(rival)},
        "long": long,
        "of_long": best["fid"] / long,
        "calls_stock": _calls(stock, best["fid"]),
        "calls_ddim": _calls(ddim, best["fid"]),
    }


def _calls(rows: list[dict[str, Any]], fid: float) -> int | None:
    """The fewest network calls with which one of them has such a FID; None if none has."""
    return min((row["nfe"] for row in rows if row["fid"] <= fid), default=None)


def _shown(row: dict[str, Any]) -> list[float]:
    return [round(row[name], 3) for name in ("fid", "fid_low", "fid_high")]


def main() -> int:
    folder = Path(sys.argv[1])
    seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else []
    for seed in range(seeds):
        records = [record for record in records if record["seed"] != seed]
        records.append(run(folder, seed))
        RECORDS.write_text(json.dumps(records, indent=1) + "\n")
        print(json.dumps(records[-1]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
