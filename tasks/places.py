"""Where things lie on this machine: everything under DDIM_DATA, read once from the environment."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ddim_core.contained import require_plain_path

DATA_URL = os.environ.get("DDIM_DATA") or "data"


def is_local() -> bool:
    return "://" not in DATA_URL or DATA_URL.startswith("file://")


def data_url(*parts: str) -> str:
    """Returns the fsspec URL or absolute path of a place below DDIM_DATA.

    Raises:
        ValueError: If a part is no plain path, and would lead elsewhere.
    """
    for part in parts:
        require_plain_path(part, "below DDIM_DATA the name")
    root = str(Path(DATA_URL.removeprefix("file://")).absolute()) if is_local() else DATA_URL
    return "/".join([root.rstrip("/"), *parts])


def local_dir(*parts: str) -> Path:
    """Returns a folder on this machine for what cannot live in an object store (databases,
    unpacked checkpoints, half-done training); below DDIM_DATA where that is a local path."""
    if is_local():
        return Path(data_url(*parts))
    for part in parts:
        require_plain_path(part, "below DDIM_DATA the name")
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache_home.joinpath("ddim-flows", *parts)


def set_environment() -> None:
    """Points Prefect and MLflow at DDIM_DATA and switches their telemetry off.

    Values that the user has set win. Prefect reads its settings when it is first imported, so
    `tasks/__init__.py` calls this before anything else.
    """
    defaults = {
        # Idle threads of torch wait without spinning: on a busy machine spinning takes 20 times
        # as long. Read when torch is first imported.
        "OMP_WAIT_POLICY": "PASSIVE",
        # One thread of linear algebra a task, as of torch: its idle threads do spin, and a score
        # is then bit-equal on machines of any number of cores. Read when NumPy is first imported.
        "OPENBLAS_NUM_THREADS": "1",
        "PREFECT_HOME": str(local_dir("prefect-home")),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; `flows.guard` waits for three
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is away must not hold a grid up
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        # The store's client repeats requests, and we do: five of its own each time are too many.
        "AWS_MAX_ATTEMPTS": "2",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{local_dir('mlflow.db')}",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    with suppress(OSError):  # Prefect makes its home there, without parents; `check_writable` tells
        local_dir().mkdir(parents=True, exist_ok=True)
