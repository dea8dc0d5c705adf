"""Generated points in, Chamfer distances with intervals out."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ddim_core.points.score import floor, score_points
from ddim_core.points.specs import PointSet
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def score_generated(
    generated: list[ArtifactRef], seeds: list[int], dataset: PointSet
) -> dict[str, Any]:
    """Scores one cell: points by sampling seed, each against as many fresh true points."""
    points = [store.get_arrays(ref)["points"] for ref in generated]
    score = score_points(dict(zip(seeds, points, strict=True)), dataset)
    return {
        "chamfer": score.mean,
        "chamfer_low": score.low,
        "chamfer_high": score.high,
        "chamfer_each": score.values,
        "created_at": datetime.now(UTC).isoformat(),
    }


@cached_task
def score_floor(dataset: PointSet, n: int, n_pairs: int) -> dict[str, Any]:
    """Scores true points against other true points, over n_pairs pairs."""
    score = asdict(floor(dataset, n, n_pairs))
    return {"floor": score["mean"], "floor_low": score["low"], "floor_high": score["high"]}
