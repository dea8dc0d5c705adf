"""Processes that run our code from a folder, with the libraries of others imported beforehand.

Each is a fork of one process that has imported those and nothing of ours: on two cores a test that
kills a grid three times would wait a minute for imports alone. Multiprocessing's own fork server.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

LIBRARIES = [
    "matplotlib.figure", "mlflow", "pandas", "peft", "pyarrow.parquet", "scipy.stats", "sklearn",
    "torch", "transformers", "diffusers.models.unets.unet_2d",
    "diffusers.models.unets.unet_2d_condition",
]  # fmt: skip
OURS = ("ddim_core", "flows", "tasks", "tests")
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(LIBRARIES)


class Forked:
    """`python SCRIPT WORDS...` in a folder, as `subprocess.Popen` has it."""

    def __init__(
        self, script: Path, words: tuple[str, ...], folder: Path, environment: Mapping[str, str],
        said: Path,
    ) -> None:  # fmt: skip
        self.said = said
        self._process = _server.Process(
            target=_run, args=(str(script), words, str(folder), dict(environment), str(said))
        )
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float) -> str:
        """Waits for its end and returns what it has said."""
        self._process.join(timeout)
        assert self.returncode is not None, f"it has not ended in {timeout:g} s: {self.told()}"
        return self.told()

    def told(self) -> str:
        return self.said.read_text(errors="replace")[-3000:] if self.said.exists() else ""


def _run(
    script: str, words: tuple[str, ...], folder: str, environment: dict[str, str], said: str
) -> None:
    """In the new process: becomes what a fresh interpreter in that folder would be."""
    for name in [name for name in sys.modules if name.partition(".")[0] in OURS]:
        del sys.modules[name]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.path.insert(0, folder)
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:  # as Python ends; multiprocessing leaves these out
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
