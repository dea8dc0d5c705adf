"""Ctrl-C and SIGTERM end a command, its children and their children, with one line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(120)
# Children that mind no SIGTERM, one of which has left a child of its own behind; a main thread that
# sleeps in C; and, as Prefect does, another handler in place of ours.
AT_WORK = """
import signal, subprocess, sys, time
from flows.run import stopping
stopping.install()
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
subprocess.Popen([sys.executable, "-c", deaf])
subprocess.Popen(["sh", "-c", "sleep 300 & sleep 0.1"])
if "handler" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
time.sleep(1.0)
try:
    print("at work", flush=True)  # a signal may come before the next line
    time.sleep(300)
finally:
    stopping.wait_if_stopping()
"""


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=5.0)[1] == []


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGINT, []), (signal.SIGTERM, []), (signal.SIGTERM, ["handler"])],
)
def test_a_signal_leaves_one_line_and_no_process(number: signal.Signals, words: list[str]) -> None:
    command = [sys.executable, "-c", AT_WORK, *words]
    work = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert work.stdout is not None
    assert work.stdout.readline() == "at work\n"
    children = children_of(work.pid)
    assert len(children) >= 2  # the orphan too
    work.send_signal(number)
    said, errors = work.communicate(timeout=30)
    assert work.returncode == 128 + number
    assert errors == "stopped; what is finished is kept, run it again to go on\n"
    assert said == ""
    assert gone(children)


def test_a_second_signal_ends_at_once_what_still_tells_a_server_of_the_first() -> None:
    slow = AT_WORK.replace(
        "stopping.install()",
        "stopping.install(); stopping.TELL_SECONDS = 60; stopping._flow_runs.append(1)\n"
        "stopping._tell_prefect = lambda: time.sleep(60)\n"
        "import os; os.environ['PREFECT_API_URL'] = 'http://127.0.0.1:9'",
    )
    work = subprocess.Popen([sys.executable, "-c", slow], stdout=subprocess.PIPE)
    assert work.stdout is not None
    work.stdout.readline()
    children = children_of(work.pid)
    work.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert work.poll() is None
    work.send_signal(signal.SIGINT)
    assert work.wait(3) == 130
    assert gone(children)


def test_ctrl_c_in_a_terminal_ends_a_grid_that_is_still_importing(tmp_path: Path) -> None:
    terminal, other = pty.openpty()
    named = ("PREFECT_API_URL", "PREFECT_HOME")  # its own server has its own database
    environment = {k: v for k, v in os.environ.items() if k not in named}
    environment["DDIM_DATA"] = str(tmp_path / "data")
    work = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.entry", "grid", "--n-images", "16"],
        stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(other)
    said = b""
    while b"grid:" not in said:
        said += os.read(terminal, 4096)
    began = time.monotonic()
    while not (children := children_of(work.pid)) and time.monotonic() - began < 20:
        time.sleep(0.05)
    os.write(terminal, b"\x03")
    assert work.wait(10) == 130
    time.sleep(0.1)
    said = os.read(terminal, 65536)
    assert b"stopped; what is finished is kept" in said
    assert b"Traceback" not in said
    assert gone(children)
