"""Where things lie on this machine: everything under DDIM_DATA, read once from the environment."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from ddim_core.common.checks import nearest
from ddim_core.common.redaction import has_password, redacted
from ddim_core.safe_files.contained import require_plain_path

DATA_URL = os.environ.get("DDIM_DATA") or "data"
# In a path: what SQLite's addresses take for options, what fsspec takes for a chain of places.
NO_PATH = re.compile(r"\?|::|[\x00-\x1f\x7f]")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(/*)(.*)", re.DOTALL)
PRIVATE, OF_A_GROUP = 0o077, 0o007  # umasks


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


def default_tracking_uri() -> str:
    """Returns MLflow's address where none is set: a database of SQLite below DDIM_DATA."""
    return f"sqlite:///{local_dir('mlflow.db')}"


def require_usable() -> None:
    """Makes sure that DDIM_DATA can be, making its folder if there is none yet.

    Raises:
        ValueError: If it holds a password or characters that would put things elsewhere, or its
            folder is none and cannot be made.
    """
    if has_password(DATA_URL):
        raise ValueError(
            f"DDIM_DATA={redacted(DATA_URL)!r} carries a password, which logs would keep; give it "
            "to fsspec by its environment (FSSPEC_<PROTOCOL>_PASSWORD, AWS_...) and leave it out"
        )
    if wrong := _misread(DATA_URL):
        raise ValueError(f"DDIM_DATA={DATA_URL!r} {wrong}")
    if not is_local():
        return
    if found := NO_PATH.search(data_url()):
        raise ValueError(
            f"DDIM_DATA={DATA_URL!r} has {found[0]!r} in its path, which databases and stores "
            "read as something else; name a folder without ?, :: and control characters"
        )
    folder = local_dir()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        next(folder.iterdir(), None)
    except OSError as error:
        raise ValueError(
            f"DDIM_DATA={DATA_URL!r} is no folder and cannot be made one, or cannot be read "
            f"({error.strerror or error}); name a folder that can"
        ) from None


def _misread(url: str) -> str:
    """Why a place would be another than its name says, with what would be right; "" for a plain
    path or a store's address."""
    if url != url.strip() or not url:
        return "is blank, or begins or ends with blanks; name a folder"
    if url.startswith("~"):
        return "begins with ~, which a shell alone expands; write the whole path"
    if found := NO_PATH.search(url):
        return (
            f"has {found[0]!r} in it, which databases and stores read as something else; name a "
            "folder without ?, :: and control characters"
        )
    if url.startswith("://"):
        return "names no store before ://; write a path, or an address such as s3://bucket/data"
    address = SCHEME.fullmatch(url)
    return _misread_address(*address.groups()) if address else ""


def _misread_address(kind: str, slashes: str, rest: str) -> str:
    place = rest if kind.lower() != "file" else f"/{rest.removeprefix('localhost/')}"
    right = f"{kind.lower()}://{place}"
    if not rest:
        return f"names no place; write an address such as {kind.lower()}:///data"
    if kind != kind.lower() or len(slashes) < 2:
        return f"is no address that is known; write {right}, or ./{kind}:... for such a folder"
    if kind == "file" and len(slashes) == 2:
        host = rest.partition("/")[0]
        return f"names the host {host!r}, and files are of this one alone; write {right}"
    if kind != "file" and kind not in (known := _known_stores()):
        return (
            f"is no address that is known: {kind} is no store that is known"
            f"{nearest(kind, known)}; write a path, or an address such as s3://bucket/data"
        )
    return ""


def _known_stores() -> list[str]:
    import fsspec  # which a place on this machine does without

    return sorted({*fsspec.available_protocols(), *fsspec.registry})


def keep_private() -> None:
    """What we make below DDIM_DATA, and elsewhere, is its owner's alone; of a folder that has the
    set-group-ID bit (`chmod 2770`, as for a team) also its group's."""
    shared = False
    if is_local():
        with suppress(OSError):
            shared = bool(local_dir().stat().st_mode & stat.S_ISGID)
    os.umask(OF_A_GROUP if shared else PRIVATE)


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
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; `flows.servers.guard` waits for three
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # Of the server that Prefect itself starts where flows are called without `ddim`: no page
        # of another origin may read its answers. `flows.servers.server` does more.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",
        "DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is away must not hold a grid up
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        # The store's client repeats requests, and we do: five of its own each time are too many.
        "AWS_MAX_ATTEMPTS": "2",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_TRACKING_URI": default_tracking_uri(),
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    keep_private()
    with suppress(ValueError):  # Prefect makes its home there, without parents; commands tell
        require_usable()
