"""The temporary server goes with its parent; places and addresses that cannot be are refused."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.servers.server import (
    ServerError,
    kept_password,
    noted,
    require_answer,
    running_serve,
    use_server_that_stays,
)
from tasks.storage import places
from tests.flows.strangers import assert_closed_to_strangers

pytestmark = pytest.mark.timeout(240)
BEGIN = """
import os, sys, time
from flows.servers.server import begin_server
server = begin_server()
if sys.argv[1] == "whole":
    server.wait()
print(server.process.pid, server.api, os.environ["PREFECT_API_AUTH_STRING"], flush=True)
time.sleep(200)
"""


def begun(folder: Path, how: str) -> tuple[subprocess.Popen[str], int, str, str]:
    named = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
    environment = {k: v for k, v in os.environ.items() if k not in named}
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN, how], text=True, stdout=subprocess.PIPE,
        env={**environment, "DDIM_DATA": str(folder)},
    )  # fmt: skip
    assert process.stdout is not None
    pid, api, auth = process.stdout.readline().split()
    return process, int(pid), api, auth


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_temporary_server_is_closed_to_strangers_and_goes_with_its_parent(
    fresh_data: Path, how: signal.Signals
) -> None:
    whole = how == signal.SIGTERM
    process, pid, api, auth = begun(fresh_data, "whole" if whole else "begun")
    if whole:
        assert_closed_to_strangers(api, None, auth)
    process.send_signal(how)
    process.wait(20)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < deadline, "the server outlives its parent"
        time.sleep(0.2)


def test_password_is_made_once_for_its_owner_and_a_stale_note_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    assert kept_password() == kept_password()
    assert stat.S_IMODE((tmp_path / "data" / "prefect-password").stat().st_mode) == 0o600
    with noted("http://127.0.0.1:1/api", "a:b", "http://127.0.0.1:1"):
        assert stat.S_IMODE((tmp_path / "data" / "serve.json").stat().st_mode) == 0o600
        assert running_serve() is None


def test_a_running_serve_is_used_where_no_other_server_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `announce`, `guard` and `deploy-run` too, which start no server of their own."""
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    monkeypatch.setattr("flows.servers.server._ask", lambda url, auth: None)
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_AUTH_STRING", "DDIM_REPORTS_URL", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:2/api")
    (tmp_path / "data").mkdir(mode=0o700)
    with noted("http://127.0.0.1:1/api", "a:b", "http://127.0.0.1:1"):
        assert use_server_that_stays() == "http://127.0.0.1:2/api"
        for name in ("PREFECT_API_AUTH_STRING", "DDIM_REPORTS_URL", "PREFECT_API_URL"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
        monkeypatch.delitem(sys.modules, "prefect.context", raising=False)  # keeps its settings
        assert use_server_that_stays() == "http://127.0.0.1:1/api"
        assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
        assert os.environ["PREFECT_API_AUTH_STRING"] == "a:b"
    monkeypatch.delenv("PREFECT_API_URL")
    assert use_server_that_stays() is None


def test_no_password_is_told_to_whoever_has_a_dead_serves_number_and_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    monkeypatch.setattr("flows.servers.server._ask", lambda url, auth: told.append(url))
    path = tmp_path / "data" / "serve.json"
    path.parent.mkdir(mode=0o700)
    with noted("http://127.0.0.1:1/api", "a:b", "http://127.0.0.1:1"):
        assert running_serve() is not None
        note = json.loads(path.read_text())
        told.clear()
        path.write_text(json.dumps(note | {"started": note["started"] - 60.0}))
        assert running_serve() is None
        path.write_text(json.dumps({k: v for k, v in note.items() if k != "started"}))
        assert running_serve() is None
        path.unlink()
        os.mkfifo(path, 0o600)  # nobody ever writes into it
        assert running_serve() is None
    assert told == []


def test_server_that_is_away_is_named_at_once() -> None:
    with pytest.raises(ServerError, match=r"PREFECT_API_URL=http://127.0.0.1:1/api does not answ"):
        require_answer("http://127.0.0.1:1/api")


@pytest.mark.parametrize(
    "api",
    ["localhost", "127.0.0.1:4200/api", "http://", "http:///api", "http://host:port/api",
     "http://host:99999/api", "ftp://host/api", "http://[::1/api", "http://a b/api", " http://a"],
)  # fmt: skip
def test_what_is_no_address_of_a_server_is_bad_input(api: str) -> None:
    with pytest.raises(ValueError, match=r"PREFECT_API_URL is '.*'; it must be the address of a"):
        require_answer(api)


@pytest.mark.parametrize("place", ["a?b", "a::b", "a\tb", "/proc/nope", "/dev/null", "s3://k:pw@b"])
def test_places_that_cannot_be_are_refused_by_every_command(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = place if place.startswith(("/", "s3")) else str(tmp_path / place)
    monkeypatch.setattr(places, "DATA_URL", local)
    for command in ("table", "report", "track"):
        refused = CliRunner().invoke(app, [command])
        assert refused.exit_code == 2, refused.output
        assert "DDIM_DATA=" in refused.stderr
        assert "pw" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["watch", "http://user:SECRETPW@host/x"],
        ["watch", "/x", "-p", "dataset=s3://user:SECRETPW@host/x"],
        ["grid", "--dataset", "https://host/x?token=SECRETPW"],
        ["grid", "--checkpoint", "https://host/x#access_token=SECRETPW"],
        ["announce", "ftp://user:SECRETPW@host/x"],
        ["score", "http://user:SECRETPW@host/x", "digits"],
    ],
)
def test_addresses_with_passwords_are_refused_without_them(words: list[str]) -> None:
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "carries credentials" in refused.stderr
    assert "SECRETPW" not in refused.output


def test_watched_places_of_the_environment_carry_no_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DDIM_WATCH", "http://user:SECRETPW@host/x")
    refused = CliRunner().invoke(app, ["watch"])
    assert refused.exit_code == 2
    assert "SECRETPW" not in refused.output


def test_what_serve_starts_ends_with_it_however_that_ends() -> None:
    """The worker and the watch are modules run by `flows.servers.child`."""
    start = (
        "import os, subprocess, sys, time\n"
        "words = ['-m', 'flows.servers.child', str(os.getpid()), 'http.server', '0']\n"
        "child = subprocess.Popen([sys.executable, *words], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    time.sleep(1.0)
    assert child.is_running()
    parent.kill()
    parent.wait()
    child.wait(30)
