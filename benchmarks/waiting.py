"""How long a user waits for a word: `python -m benchmarks.waiting`; writes waiting.json.

Everything is measured from outside, on real processes whose output goes into a pipe: the seconds to
the first line and the longest silence of whole commands, to a refusal, of an unchanged grid, and
from Ctrl-C to the end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OUT = Path(__file__).with_suffix(".json")
GRID = "grid --steps 5,10 --etas 0,1 --n-images 256 --train-steps 200"
SWISS_ROLL = "swiss-roll --train-steps 500 --steps 10,20 --sampling-seeds 2"
LORA = "lora style --steps 20 --checkpoint-every 20 --scales 0,1"
SCORE = "score digits emoji --resolution 8 --features pixels"
MEASURED = (  # name, command, seconds to Ctrl-C
    ("refused option", "grid --features inceptoin-v3", None),
    ("refused data set", "grid --dataset imagenet", None),
    ("refused score", "score digits /no/such", None),
    ("ctrl-c while importing", GRID, 3.0),
    ("ctrl-c at work", GRID, 25.0),
    ("grid", GRID, None),
    ("unchanged grid", GRID, None),
    ("data", "data digits", None),
    ("train", "train --train-steps 300", None),
    ("score", SCORE, None),
    ("ctrl-c in swiss-roll", SWISS_ROLL, 30.0),
    ("swiss-roll", SWISS_ROLL, None),
    ("ctrl-c in lora", LORA, 60.0),
    ("lora style", LORA, None),
)


def run(words: str, data: str, stop_after: float | None = None) -> dict[str, Any]:
    """Runs a command; returns its exit code and its seconds: in all, to the first line, and the
    longest without one. With `stop_after` it gets SIGINT then, and `stop` is how long it took."""
    environment = {**os.environ, "DDIM_DATA": data}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.cli.entry", *words.split()]
    began = last = time.monotonic()
    first, silence, asked = None, 0.0, None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as work:
        assert work.stdout is not None
        for _ in work.stdout:
            now = time.monotonic()
            first = now - began if first is None else first
            silence, last = max(silence, now - last), now
            if stop_after is not None and asked is None and now - began > stop_after:
                work.send_signal(signal.SIGINT)
                asked = now
        work.wait()
    end = time.monotonic()
    found = {
        "exit_code": work.returncode,
        "seconds": round(end - began, 2),
        "first_line": None if first is None else round(first, 2),
        "longest_silence": round(max(silence, end - last), 2),
    }
    return found | ({"stop": round(end - asked, 2)} if asked is not None else {})


def main() -> None:
    """Measures one after the other, and writes after each."""
    found: dict[str, Any] = {"cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as data:
        for name, words, stop_after in MEASURED:
            found[name] = {"load": os.getloadavg()[0], **run(words, data, stop_after)}
            print(name, found[name], flush=True)
            OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
