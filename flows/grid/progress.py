"""How a running grid shows itself: a bar and lines in the terminal, an artifact in the UI."""

from __future__ import annotations

import os
import time
from typing import Any, Self

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from tqdm import tqdm

from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.diffusion.specs import GridCell
from flows.run import waiting
from tasks.machine.pages import if_server_answers
from tasks.sampling.shards import Shard


class GridProgress:
    """Progress of one grid; used in a `with` block so that the bar is always closed.

    Args:
        cells: The grid's cells.
        n_images: Images per cell.
    """

    def __init__(self, cells: list[GridCell], n_images: int) -> None:
        self.n_cells = len(cells)
        self.n_landed = 0
        self.images_drawn = 0
        self.logger = get_run_logger()
        self.in_terminal = bool(os.environ.get("DDIM_TERMINAL"))
        self.bar = tqdm(
            total=n_images * sum(cell.sampler.steps for cell in cells),
            desc="images x steps",
            unit="",
            unit_scale=True,
            disable=None if self.in_terminal else True,
            smoothing=0.05,
        )
        self.shown = float("-inf")
        self.artifact: Any = None
        with if_server_answers():
            self.artifact = create_progress_artifact(
                progress=0.0, key="fid-grid-progress", description=f"0 of {self.n_cells} cells"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def say(self, line: str) -> None:
        """Puts a line into the run's log and, under the CLI, into the terminal."""
        self.logger.info(line)
        if self.in_terminal:
            waiting.say(line)

    def shard_done(self, cell: GridCell, shard: PrefectFuture[Shard]) -> None:
        """Counts a finished shard's images, and those that had to be drawn."""
        shard.wait()
        if shard.state.is_completed():
            record = shard.result()
            self.bar.update(record.n * cell.sampler.steps)
            if shard.state.name != "Cached":
                self.images_drawn += record.drawn

    def cell_landed(self, row: CellRow) -> None:
        """Says a cell's score, with its interval, count and extractor."""
        self.n_landed += 1
        fid = with_interval(row.fid, row.fid_low, row.fid_high)
        self.say(f"{cell_name(row):<22} FID {fid}  N = {row.n_images}, {row.extractor} features")
        if self.artifact is None or not self._is_time():
            return
        with if_server_answers():
            update_progress_artifact(
                self.artifact,
                progress=100.0 * self.n_landed / self.n_cells,
                description=f"{self.n_landed} of {self.n_cells} cells; last: {cell_name(row)}",
            )
            return
        self.artifact = None  # to wait a minute for it at each cell would be a shame

    def _is_time(self) -> bool:
        """At most once a second, and at the end."""
        now = time.monotonic()
        if now - self.shown < 1.0 and self.n_landed < self.n_cells:
            return False
        self.shown = now
        return True
