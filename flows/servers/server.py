"""Starts Prefect's and MLflow's servers, or finds those of a running `make serve`.

A server runs in a process and session of its own, so that a terminal's Ctrl-C reaches its parent
alone, and ends with its parent, however that ends. It asks for a password, made for it at random,
and answers to its own names and to its own pages only (`tasks.machine.same_origin`).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ddim_core.common.plain_files import read_bytes
from tasks.machine.same_origin import EVERYWHERE, names_of
from tasks.storage import places

LOOPBACK = "127.0.0.1"
PATIENCE_SECONDS = 300.0
ANSWER_SECONDS = 10.0  # of a busy server; who is away refuses at once
STOP_SECONDS = 5.0
MOST_NOTE = 2**16  # bytes
NOTE = "serve.json"  # where a running `make serve` says its addresses
USER = "ddim"
# Task runs are written a second's worth at a time, not each for itself: `benchmarks.task_runs`
# measures what that saves.
IN_BATCHES = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class ServerError(RuntimeError):
    """A server did not start or does not answer; the message says what to do."""


@dataclass(frozen=True)
class Server:
    """The Prefect server of this process and of all that it starts.

    Attributes:
        api: Its address, that of PREFECT_API_URL.
        process: The temporary server that was started here; None for one that was there.
        log: What the temporary server says.
    """

    api: str
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    def wait(self, tell: Callable[[float], None] = lambda seconds: None) -> None:
        """Waits until the server answers; calls `tell` twice a second with how long.

        Raises:
            ServerError: If it ends, or does not answer.
        """
        if self.process is not None:
            wait_for(f"{self.api}/health", [self.process], self.log, tell)

    def stop(self) -> None:
        """Ends the temporary server, if there is one; may be called twice. It would also end by
        itself, within seconds of this process."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def begin_server() -> Server:
    """Points this process at a Prefect server, started now if there is none; does not wait for it.

    The server of PREFECT_API_URL where that is set (who does not answer is told of at once), else
    that of a running `make serve` of this DDIM_DATA with its MLflow, else a temporary one. Sets
    os.environ at once, so Prefect (and the flows) may be imported while the server starts; where
    Prefect is imported already, its settings are read again. Whoever ends a command calls `stop`
    on the result (on Ctrl-C too); what nobody stops ends with this process.

    Raises:
        ServerError: If the server of PREFECT_API_URL does not answer, or refuses the password.
    """
    if (there := use_server_that_stays()) is not None:
        require_answer(there)
        return Server(there)
    auth = f"{USER}:{secrets.token_urlsafe(24)}"
    listening = bound(LOOPBACK, 0)
    api = f"http://{LOOPBACK}:{listening.getsockname()[1]}/api"
    temporary = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "0",  # it has no automations
    }
    process, log = start_prefect(listening, LOOPBACK, auth, temporary)
    _point_at(api, auth)
    return Server(api, process, log)


def use_server_that_stays() -> str | None:
    """Points this process at the server of PREFECT_API_URL, or else at a running `make serve` of
    this DDIM_DATA with its MLflow; returns its address, None where there is neither."""
    if _is_chosen():
        _use_password_of_our_serve(os.environ["PREFECT_API_URL"])
        return os.environ["PREFECT_API_URL"]
    note = running_serve()
    if note is None:
        return None
    _point_at(note["api"], note["auth"])
    if os.environ.get("MLFLOW_TRACKING_URI") == places.default_tracking_uri():
        os.environ["MLFLOW_TRACKING_URI"] = note["mlflow"]
    os.environ.setdefault("DDIM_REPORTS_URL", note.get("reports", ""))
    return str(note["api"])


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that listens on an address; the server it is handed to cannot lose it.

    Raises:
        OSError: If it is taken, or no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=2048)


def start_prefect(
    listening: socket.socket, host: str, auth: str, more: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts Prefect's server on a bound socket; returns its process and log."""
    port = listening.getsockname()[1]
    own = f"http://{bracketed(LOOPBACK if host in EVERYWHERE else host)}:{port}"
    settings = {
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_API_URL": f"{own}/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": own,
        "PREFECT_UI_API_URL": "/api",
        **{name: os.environ.get(name, value) for name, value in IN_BATCHES.items()},
        **(more or {}),
    }
    return start_server("flows.servers.prefect_server", listening, host, settings)


def start_server(
    module: str, listening: socket.socket, host: str, settings: dict[str, str]
) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts `python -m MODULE` on a bound socket, in a session of its own, as our child."""
    log = places.local_dir("logs") / f"{module.rpartition('.')[2].replace('_', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    fd = listening.fileno()
    words = ["--fd", str(fd), "--parent", str(os.getpid()), "--names", ",".join(names_of(host))]
    with log.open("ab") as said, listening:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], env={**os.environ, **settings},
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, pass_fds=[fd],
            start_new_session=True,
        )  # fmt: skip
    return process, log


def wait_for(
    url: str,
    processes: list[subprocess.Popen[bytes]],
    log: Path | None,
    tell: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Waits until an address answers.

    Raises:
        ServerError: If one of the processes ends, or no answer comes in five minutes.
    """
    began = time.monotonic()
    while (waited := time.monotonic() - began) < PATIENCE_SECONDS:
        if any(process.poll() is not None for process in processes):
            raise ServerError(f"a server has ended; {log or places.local_dir('logs')} says why")
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):
                return
        except OSError:
            tell(waited)
            time.sleep(0.3)
    raise ServerError(f"{url} did not answer in {PATIENCE_SECONDS:.0f} s; see {log}")


def require_answer(api: str) -> None:
    """Makes sure in seconds that a Prefect server answers us.

    Raises:
        ValueError: If it is no address of a server.
        ServerError: If it does not, or refuses the password.
    """
    from ddim_core.common.checks import require_address
    from ddim_core.common.redaction import redacted

    require_address("PREFECT_API_URL", api)
    shown = redacted(api)
    try:
        _ask(f"{api}/admin/version", os.environ.get("PREFECT_API_AUTH_STRING"))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403) and not os.environ.get("PREFECT_API_KEY"):
            raise ServerError(
                f"the Prefect server at PREFECT_API_URL={shown} refuses the password; set "
                "PREFECT_API_AUTH_STRING to the one that `make serve` prints"
            ) from None
    except (OSError, ValueError) as error:
        why = redacted(str(getattr(error, "reason", error)))
        raise ServerError(
            f"the Prefect server at PREFECT_API_URL={shown} does not answer ({why}); start it "
            "(`make serve`), or unset PREFECT_API_URL: a run then starts a server of its own"
        ) from None


def kept_password() -> str:
    """Returns `user:password` of `make serve`: PREFECT_SERVER_API_AUTH_STRING where that is set,
    else what was made at the first start and lies below DDIM_DATA, for its owner alone."""
    if given := os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        return given
    path = places.local_dir("prefect-password")
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), os.fdopen(os.open(path, CREATE, 0o600), "w") as made:
        made.write(f"{USER}:{secrets.token_urlsafe(24)}")
    about = path.lstat()
    if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid():
        raise ServerError(f"{path} is not a file of yours; delete it, and a password is made anew")
    path.chmod(0o600)
    kept = path.read_text(encoding="utf-8").strip()
    if ":" not in kept:
        raise ServerError(f"{path} holds no user:password; delete it, and one is made anew")
    return kept


@contextmanager
def noted(api: str, auth: str, mlflow: str, reports: str = "") -> Iterator[None]:
    """Lets `running_serve` find these servers while this holds."""
    path = places.local_dir(NOTE)
    path.unlink(missing_ok=True)
    note: dict[str, Any] = {"api": api, "auth": auth, "mlflow": mlflow, "pid": os.getpid()}
    note["reports"] = reports
    note["started"] = _started(os.getpid())
    with os.fdopen(os.open(path, CREATE, 0o600), "w", encoding="utf-8") as file:
        json.dump(note, file)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_serve() -> dict[str, Any] | None:
    """What a running `make serve` of this DDIM_DATA wrote down: api, auth, mlflow, pid, started.

    None if there is no note of ours, its process has gone (its number may be another's by now, and
    its port too, who would be told the password), or its servers do not answer to it.
    """
    path = places.local_dir(NOTE)
    try:
        about = path.stat()
        if about.st_uid != os.getuid() or about.st_mode & 0o077:
            return None  # anybody may have written it
        note = json.loads(read_bytes(path, MOST_NOTE))
        if _started(int(note["pid"])) != note["started"]:
            return None
        _ask(f"{note['api']}/admin/version", str(note["auth"]))
        _ask(f"{note['mlflow']}/health", None)
    except (OSError, ValueError, KeyError, TypeError):  # also of urllib, and of JSON
        return None
    return dict(note)


def _started(pid: int) -> float | None:
    """When a process was started; None of one that is not there."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def bracketed(host: str) -> str:
    """A host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def _is_chosen() -> bool:
    """Tells whether a server is named in the environment, or in Prefect's own files."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ["PREFECT_HOME"])
    files = [home / "profiles.toml", Path("prefect.toml"), Path(".env")]
    if os.environ.get("PREFECT_PROFILE") or any(file.exists() for file in files):
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

        if chosen := PREFECT_API_URL.value():
            os.environ["PREFECT_API_URL"] = chosen
            if auth := PREFECT_API_AUTH_STRING.value():
                os.environ["PREFECT_API_AUTH_STRING"] = auth
            return True
    return False


def _use_password_of_our_serve(api: str) -> None:
    if os.environ.get("PREFECT_API_AUTH_STRING") or os.environ.get("PREFECT_API_KEY"):
        return
    note = running_serve()
    if note is not None and note["api"] == api:
        _point_at(api, note["auth"])


def _point_at(api: str, auth: str) -> None:
    os.environ.update({"PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": auth})
    if "prefect.context" in sys.modules:  # which has read its settings already
        sys.modules["prefect.context"].refresh_global_settings_context()


def _ask(url: str, auth: str | None) -> None:
    request = urllib.request.Request(url)
    if auth:
        token = base64.b64encode(auth.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS):
        return
