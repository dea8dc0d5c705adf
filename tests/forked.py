"""Processes that start with the libraries of others imported: forks of one that has them.

It imports nothing of ours, so that what a fork runs may be any copy of the source. On two cores a
test that kills a grid three times would wait a minute for imports alone, and each of xdist's
workers would spend 20 s on them: the whole session has one such process, `start`ed by whoever
comes first, and it ends with that one. As a script this is both: `forked.py serve FD`, the process
itself; and `forked.py -u -c CODE`, Python's own words as xdist says them, a fork that runs CODE
with this process's streams.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import site
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import traceback
import types
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

LIBRARIES = [
    "alembic.context", "datasets", "diffusers.models.unets.unet_1d",
    "diffusers.models.unets.unet_2d", "diffusers.models.unets.unet_2d_condition", "distributed",
    "hypothesis", "matplotlib.figure", "mlflow", "mlflow.store.tracking.sqlalchemy_store",
    "pandas", "peft", "prefect", "prefect.client.orchestration", "prefect.server.api.server",
    "pyarrow.parquet", "scipy.stats", "sklearn", "torch", "torchvision", "transformers",
]  # fmt: skip
ADDRESS = "DDIM_TESTS_FORKS"  # of the process that forks, told to all that it and pytest start
NUMBER = struct.Struct("q")
STREAMS = 3

_started: list[subprocess.Popen[bytes]] = []


def start(address: Path) -> None:
    """Starts the process that forks, at a socket; what asks it early waits for its imports."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        words = [sys.executable, __file__, "serve", str(listener.fileno())]
        _started.append(
            subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
        )
    os.environ[ADDRESS] = str(address)


def start_once() -> None:
    """Starts that process where nobody has, which is without xdist."""
    if ADDRESS not in os.environ:
        start(Path(os.environ["DDIM_TESTS_DIR"]) / "forks")


def stop() -> None:
    """Ends the process that was started here, and all of its forks."""
    while _started:
        process = _started.pop()
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


class Forked:
    """`python SCRIPT WORDS...` in a folder, as `subprocess.Popen` has it.

    Without `path`, modules are found in the folder and where this process finds them.
    """

    def __init__(
        self, script: Path, words: tuple[str, ...], folder: Path, environment: Mapping[str, str],
        said: Path, path: list[str] | None = None,
    ) -> None:  # fmt: skip
        self.said = said
        self.returncode: int | None = None
        asked = {
            "script": str(script), "argv": [str(script), *words], "folder": str(folder),
            "environment": dict(environment),
            "path": [str(folder), *sys.path] if path is None else path,
        }  # fmt: skip
        told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            self._answers, self._pid = _ask(asked, [nothing, told, told])
        finally:
            os.close(told)
            os.close(nothing)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None and select.select([self._answers], [], [], 0)[0]:
            self._read()
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self, timeout: float) -> str:
        """Waits for its end and returns what it has said."""
        if self.returncode is None and select.select([self._answers], [], [], timeout)[0]:
            self._read()
        assert self.returncode is not None, f"it has not ended in {timeout:g} s: {self.told()}"
        return self.told()

    def told(self) -> str:
        return self.said.read_text(errors="replace")[-3000:] if self.said.exists() else ""

    def _read(self) -> None:
        self.returncode = _number(self._answers)
        self._answers.close()


def run(
    command: list[str], *, cwd: str | Path, env: Mapping[str, str], **_: object
) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of `python -c CODE WORDS...`, or of `python -I -c`, with captured text."""
    words = command[1:]
    path = ["", *sys.path]
    if words[0] == "-I":
        places = sysconfig.get_paths()
        path = [places["stdlib"], f"{places['platstdlib']}/lib-dynload", *site.getsitepackages()]
        del words[0]
    assert words[0] == "-c", command
    asked = {
        "code": words[1], "argv": ["-c", *words[2:]], "folder": str(cwd), "path": path,
        "environment": dict(env),
    }  # fmt: skip
    with (
        TemporaryFile("w+") as said,
        TemporaryFile("w+") as errors,
        Path(os.devnull).open() as nothing,
    ):
        answers, _ = _ask(asked, [nothing.fileno(), said.fileno(), errors.fileno()])
        with answers:
            code = _number(answers)
        for file in (said, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, said.read(), errors.read())


def _ask(asked: dict[str, Any], streams: list[int]) -> tuple[socket.socket, int]:
    """Asks for a fork; returns the socket on which its exit code will be told, and its number."""
    start_once()
    answers = socket.socket(socket.AF_UNIX)
    answers.connect(os.environ[ADDRESS])
    content = json.dumps(asked).encode()
    handed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))
    answers.sendmsg([NUMBER.pack(len(content))], [handed])
    answers.sendall(content)
    return answers, _number(answers)


def _number(answers: socket.socket) -> int:
    content = answers.recv(NUMBER.size, socket.MSG_WAITALL)
    assert len(content) == NUMBER.size, "the process that forks has ended"
    return int(NUMBER.unpack(content)[0])


def _serve(listener: socket.socket) -> None:
    """Forks whenever asked, and tells who asked how each ended, until standard input is closed."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no fork has to go through two million objects that stay
    awake, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the forks have it
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    running: dict[int, socket.socket] = {}
    while True:
        ready = select.select([0, awake, listener], [], [])[0]
        if 0 in ready:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return
        if awake in ready:
            awake.recv(4096)
            _tell_of_ends(running)
        if listener in ready:
            answers = listener.accept()[0]
            length, streams, _, _ = socket.recv_fds(answers, NUMBER.size, STREAMS)
            left = NUMBER.unpack(length)[0]
            asked = json.loads(answers.recv(left, socket.MSG_WAITALL))
            if not (pid := os.fork()):
                for ours in (listener, awake, wake, answers, *running.values()):
                    ours.close()
                _become(asked, streams)
            for stream in streams:
                os.close(stream)
            running[pid] = answers
            _send(answers, pid)


def _tell_of_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as answers:
            _send(answers, os.waitstatus_to_exitcode(status))


def _send(answers: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # who asked has gone
        answers.sendall(NUMBER.pack(number))


def _become(asked: dict[str, Any], streams: list[int]) -> None:
    """In the fork: becomes what a fresh interpreter in that folder would be, and ends as one."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.modules["prefect.context"].refresh_global_settings_context()
        sys.path[:] = asked["path"]
        sys.argv = asked["argv"]
        if "code" in asked:
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(asked["code"], vars(sys.modules["__main__"]))
        else:
            runpy.run_path(asked["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = _code_of(end)
    except BaseException:
        traceback.print_exc()
    finally:  # as Python ends
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _code_of(end: SystemExit) -> int:
    if isinstance(end.code, str):
        print(end.code, file=sys.stderr)
        return 1
    return end.code or 0


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        del sys.path[0]  # this folder, which no fork is to find modules in
        with socket.socket(fileno=int(sys.argv[2])) as listening:
            _serve(listening)
    else:
        here = {
            "code": sys.argv[-1], "argv": ["-c"], "folder": str(Path.cwd()),
            "environment": dict(os.environ), "path": ["", *sys.path[1:]],
        }  # fmt: skip
        ends, _ = _ask(here, [0, 1, 2])
        os._exit(_number(ends) % 256)
