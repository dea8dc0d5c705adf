"""The protocol matrix of a grid's report."""

from __future__ import annotations

from ddim_core.decisions.row import CellRow
from ddim_core.features.registry import every_choice
from flows.requests.grid import GridRequest
from tasks.cells.extractor import StoredExtractor, ready_extractor
from tasks.cells.protocol_matrix import MatrixLine, protocol_matrix
from tasks.cells.reference import STATISTICS
from tasks.images.prepare import PreparedImages
from tasks.sampling.shards import Shard


def best_cell_matrix(
    request: GridRequest,
    extractor: StoredExtractor,
    reference_images: PreparedImages,
    rows: list[CellRow],
    shards: list[list[Shard]],
) -> list[MatrixLine]:
    """Scores the images of the best cell by every protocol at hand.

    Args:
        request: Says of how many images; 0 leaves the matrix out.
        extractor: The grid's own.
        reference_images: The real images; without any there is no matrix.
        rows: The grid's rows.
        shards: The shards of images of each row's cell.

    Returns:
        One line a protocol.
    """
    if not request.scores.matrix_images or reference_images.kind == STATISTICS:
        return []
    best = min(range(len(rows)), key=lambda i: request.verdict.measure.cost(rows[i]))
    own = request.extractor()
    n_pixels = reference_images.resolution**2 * reference_images.channels
    extractors = [ready_extractor(choice) for choice in every_choice(own, n_pixels)]
    if own.name == "classifier":
        extractors = [extractor, *extractors]
    n_images, execution = request.scores.matrix_images, request.machine.execution
    return protocol_matrix(shards[best], reference_images, extractors, n_images, execution).lines
