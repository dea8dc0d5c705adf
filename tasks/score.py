"""Features of a cell and of the reference in, scores with intervals out."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ddim_core.score import ScoreReference, score_features
from tasks import store
from tasks.caching import cached_task
from tasks.store import ArtifactRef


@cached_task
def score_cell(features: list[ArtifactRef], reference: ArtifactRef) -> dict[str, Any]:
    """Scores one cell; its shards are folded in order of image index, whoever made them first."""
    shards = [store.get_arrays(shard)["features"] for shard in features]
    score = score_features(shards, _reference(reference["artifact"]))
    return {**asdict(score), "created_at": datetime.now(UTC).isoformat()}


@lru_cache(maxsize=2)  # a grid's cells share theirs
def _reference(artifact: str) -> ScoreReference:
    ref = ArtifactRef(artifact=artifact, kind="features")
    return ScoreReference.of(store.get_arrays(ref)["features"])
