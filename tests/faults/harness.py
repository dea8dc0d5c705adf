"""What the fault scripts share: a small grid in processes that may be killed, and final tables.

Each script is one command, `python -m tests.faults.NAME`, run from the project; it prints what it
saw and fails if a promise of docs/reliability.md is broken. None is part of the default tests.
With FAULTS_ON=pipeline in the environment the grid is drawn by a pipeline's own call.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from benchmarks.servers import PROJECT, environment, prefect_server, start
from ddim_core.common.digest import code_digest, digest

N_CELLS, N_IMAGES, SHARD = 8, 64, 16
BY_PIPELINE = os.environ.get("FAULTS_ON") == "pipeline"
# About ten seconds of drawing on one core: time enough for something to go wrong in.
ALIKE = ("--n-images", str(N_IMAGES), "--shard-size", str(SHARD), "--features", "pixels",
         "--batch-size", "16", "--workers", "1")  # fmt: skip
GRID = ("--steps", "20,50", "--etas", "0,0.5,1", "--sigma-hat", *ALIKE)
BY_PIPELINE_GRID = ("--steps", "4,8", "--samplers", "own,dpmpp_2m,euler_a,dpmpp_2m_sde",
                    "--guidance", "3", "--dataset", "emoji", *ALIKE)  # fmt: skip
CHANGES_EACH_TIME = ["sample_seconds", "images_per_second", "created_at"]
MAKE_TOY = """
import sys
from pathlib import Path
from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.images.load import load_images
from ddim_core.networks.specs import TrainSpec
from ddim_core.networks.training import start, train
spec = TrainSpec(steps=20, batch_size=32, warmup_steps=5)
state = start(spec)
for _ in train(spec, load_images("digits", "train").images, state):
    pass
save_pipeline(Path(sys.argv[1]), state.ema, spec.noise, training_step=spec.steps)
"""

MAKE_PIPELINE = """
import sys
from pathlib import Path
from safetensors.torch import save_file
from tests.core.pipelines.tiny import PIPELINES
folder = Path(sys.argv[1])
PIPELINES["sdxl"].make().save_pretrained(folder)
save_file(PIPELINES["sdxl"].conditions(range(8)), folder.with_suffix(".safetensors"))
"""


@dataclass(frozen=True)
class Place:
    """A DDIM_DATA, and the environment of processes that work there."""

    folder: Path
    checkpoint: Path
    more: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "grid.log"

    @property
    def env(self) -> dict[str, str]:
        return environment(self.folder, **self.more)

    def told(self, **more: str) -> Place:
        """The same place with more in its environment."""
        return replace(self, more=self.more | more)

    def ddim(self, *words: str) -> subprocess.Popen[bytes]:
        return start(self.log, self.env, "-m", "flows.cli.app", *words)

    def grid(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts the small grid, with more words to the command."""
        asked = ("grid", "--checkpoint", str(self.checkpoint), *words)
        if not BY_PIPELINE:
            return self.ddim(*asked, *GRID)
        prompts = str(self.checkpoint.with_suffix(".safetensors"))
        return self.ddim(*asked, "--prompts", prompts, *BY_PIPELINE_GRID)

    def whole_grid(self, *words: str) -> int:
        """Runs the small grid to its end; returns how many images it had to draw."""
        code = self.grid(*words).wait(400)
        assert code == 0, f"exit code {code}: {self.last_words()}"
        return int(re.findall(r"images drawn: (\d+)", self.log.read_text())[-1])

    @property
    def n_rows(self) -> int:
        return len(list((self.data / "results" / "cells").glob("*.parquet")))

    def rows(self) -> pd.DataFrame:
        """The table's lasting columns, as an outsider reads them."""
        frame = pd.read_parquet(self.data / "results" / "cells")
        return frame.drop(columns=CHANGES_EACH_TIME).sort_values("cell_digest", ignore_index=True)

    def last_words(self) -> str:
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-4:])


@contextmanager
def places(name: str) -> Iterator[tuple[Place, pd.DataFrame]]:
    """A place for a grid to be disturbed in, with a Prefect server, and the rows of the same grid
    left in peace."""
    quiet = undisturbed()
    with (
        tempfile.TemporaryDirectory(prefix=f"ddim-fault-{name}-") as root,
        prefect_server(Path(root)) as api,
    ):
        yield Place(Path(root), quiet.checkpoint, {"PREFECT_API_URL": api}), quiet.rows()


def undisturbed() -> Place:
    """The grid left in peace; kept for the next script, while the code stays the same."""
    drawn_by = "tasks.sampling.pipeline" if BY_PIPELINE else "tasks.sampling.native"
    modules = (drawn_by, "tasks.cells.embed", "tasks.cells.score")
    code = digest([code_digest(module) for module in modules])
    root = Path(tempfile.gettempdir(), f"ddim-undisturbed-{code[:16]}")
    quiet = Place(root, root / "toy")
    if quiet.n_rows < N_CELLS:
        root.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-c", MAKE_PIPELINE if BY_PIPELINE else MAKE_TOY,
             str(quiet.checkpoint)],
            cwd=PROJECT, check=True, env=quiet.env,
        )  # fmt: skip
        drawn = quiet.whole_grid()
        say(f"undisturbed: {N_CELLS} cells, {drawn} images drawn")
    return quiet


def same(table: pd.DataFrame, undisturbed: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(table, undisturbed, check_exact=True)
    say(f"final table: {len(table)} rows, equal to the undisturbed run's")


def wait_until(is_so: Callable[[], bool], what: str, within: float = 240.0) -> float:
    """Waits for something to be so; returns the seconds it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within, f"not within {within:.0f} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 of a process we started, with all that it started in its group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def say(line: str) -> None:
    print(line, flush=True)
