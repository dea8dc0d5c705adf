"""MLflow runs of cells that have landed, while others are still at work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread

from ddim_core.common.redaction import redacted
from ddim_core.decisions.row import CellRow
from tasks.tracking import database
from tasks.tracking.client import (
    GRIDS,
    cell_entry,
    find_experiment,
    finish,
    known_runs,
    one_at_a_time,
    say,
)

logger = logging.getLogger(__name__)


@contextmanager
def cells_logged_early(grid: str) -> Iterator[Callable[[CellRow], None]]:
    """Yields what a landed row is handed to; a thread logs it while the grid goes on.

    `track_grid` stays what answers for the log: it finds these runs, puts them below their grid's
    and makes those that are missing. So whatever fails here only leaves more to it.

    Args:
        grid: The grid's digest, as `track_grid` has it.
    """
    landed: SimpleQueue[CellRow | None] = SimpleQueue()
    thread = Thread(target=_log, args=(grid, landed), name="mlflow-cells", daemon=True)
    thread.start()
    try:
        yield landed.put
    finally:
        landed.put(None)
        thread.join()


def _log(grid: str, landed: SimpleQueue[CellRow | None]) -> None:
    try:
        while (row := landed.get()) is not None:
            with one_at_a_time():
                client = database.client()
                experiment = find_experiment(client, GRIDS)
                entry = cell_entry(row, grid)
                # Asked each time: another process may be logging the same grid.
                known = known_runs(client, experiment, grid, entry.identity)
                finish(client, say(client, experiment, known, entry, {"ddim.grid": grid}))
    except Exception as error:  # a server that is away fails in many ways
        logger.info("MLflow is told of the cells at the end of the grid: %s", redacted(str(error)))
