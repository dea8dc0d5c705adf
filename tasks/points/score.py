"""Generated points in, Chamfer distances with intervals out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ddim_core.points.score import SeedMean, floor, score_points
from ddim_core.points.specs import PointSet
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class PointScore:
    """The Chamfer distance of a setting over its sampling seeds, and when it was taken."""

    chamfer: SeedMean
    created_at: str


@cached_task
def score_generated(
    generated: Sequence[ArtifactRef], seeds: list[int], dataset: PointSet
) -> PointScore:
    """Scores one cell: points by sampling seed, each against as many fresh true points."""
    points = [store.get_arrays(ref)["points"] for ref in generated]
    score = score_points(dict(zip(seeds, points, strict=True)), dataset)
    return PointScore(score, datetime.now(UTC).isoformat())


@cached_task
def score_floor(dataset: PointSet, n: int, n_pairs: int) -> SeedMean:
    """Scores true points against other true points, over n_pairs pairs."""
    return floor(dataset, n, n_pairs)
