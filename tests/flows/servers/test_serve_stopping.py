"""`ddim serve` speaks at once, and a signal ends it and its servers within seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.run.stopping import STOPPED


@pytest.mark.timeout(90)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_serve_with_one_line_and_no_process(
    number: signal.Signals, tmp_path: Path
) -> None:
    ports = {"DDIM_PREFECT_PORT": "0", "DDIM_MLFLOW_PORT": "0", "DDIM_REPORTS_PORT": "0"}
    serve = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.entry", "serve"],
        env={**os.environ, **ports, "DDIM_DATA": str(tmp_path / "data")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert serve.stdout is not None
    assert serve.stdout.readline() == "serve: starting Prefect, MLflow and a worker\n"
    while len(started := psutil.Process(serve.pid).children(recursive=True)) < 2:
        time.sleep(0.1)
    began = time.monotonic()
    serve.send_signal(number)
    _, errors = serve.communicate(timeout=30)
    assert time.monotonic() - began < 5  # 3 are promised, 2 and a kill are needed
    assert serve.returncode == 128 + number
    assert errors == f"{STOPPED}\n"
    assert psutil.wait_procs(started, timeout=5)[1] == []
