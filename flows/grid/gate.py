"""What follows from a grid's verdict: MLflow is told, a champion promoted, a gate shut or open."""

from __future__ import annotations

from prefect.logging import get_run_logger

from ddim_core.common.digest import digest
from ddim_core.decisions.row import CellRow
from flows.requests.grid import GridRequest
from tasks.checkpoints.identity import mark_scored
from tasks.checkpoints.open import CheckpointRecord
from tasks.images.prepare import content_of
from tasks.reports.records import FiledVerdict
from tasks.storage.store import get_folder
from tasks.tracking.models import promote, track_verdict


class RegressionError(RuntimeError):
    """The new checkpoint is proven worse, and a gate was asked for; all its results are kept."""


def conclude(
    request: GridRequest,
    rows: list[CellRow],
    checkpoint: CheckpointRecord,
    verdict: FiledVerdict | None,
) -> None:
    """Remembers a whole grid as scored, tells MLflow its verdict, promotes, and minds the gate.

    Raises:
        RegressionError: If a gate was asked for and the checkpoint is proven worse.
    """
    cells, weights = [row.cell_digest for row in rows], checkpoint.weights_digest
    run_id = None
    mark_scored(request.identity(content_of(request.real.dataset)), weights, cells)
    if verdict:
        grid = digest(sorted(cells))
        tags = {
            "verdict": verdict.call,
            "verdict.against": verdict.against,
            "verdict.point": verdict.point,
            "verdict.reading": verdict.sentences[0],
        }
        told = track_verdict(grid, tags, verdict.difference, return_state=True)
        run_id = told.result() if told.is_completed() else None
    if request.verdict.promote and (verdict is None or verdict.call == "better"):
        call = verdict.call if verdict else "first"
        folder = str(get_folder(checkpoint.ref))
        address = promote(request.verdict.promote, folder, weights, run_id, call)
        get_run_logger().info("champion of %s: %s", request.verdict.promote, address)
    if request.verdict.gate and verdict and verdict.call == "worse":
        raise RegressionError(f"{verdict.sentences[0]} See {verdict.page}")
