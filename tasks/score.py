"""Features of a cell and of the reference in, scores with intervals out."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from ddim_core.further import FurtherScores, further_scores
from ddim_core.interop import statistics_of
from ddim_core.score import ScoreReference, jackknife_groups, score_features
from ddim_core.versions import score_versions
from tasks import store
from tasks.caching import cached_task
from tasks.feature_models import extractor_in_memory
from tasks.store import ArtifactRef


@cached_task
def score_cell(
    features: list[ArtifactRef], reference: ArtifactRef, extractor: ArtifactRef
) -> dict[str, Any]:
    """Scores one cell; its shards are folded in order of image index, whoever made them first."""
    shards = [store.get_arrays(shard)["features"] for shard in features]
    against, statistics_digest = _reference(reference["artifact"])
    score = score_features(shards, against)
    more = FurtherScores()
    if extractor["name"] != "pixels":
        network = extractor_in_memory(extractor, ())
        more = further_scores(network, jackknife_groups(shards), against.features)
    return {
        **asdict(score),
        **asdict(more),
        "statistics_digest": statistics_digest,
        "versions": score_versions(),
        "created_at": datetime.now(UTC).isoformat(),
    }


@lru_cache(maxsize=2)  # a grid's cells share theirs
def _reference(artifact: str) -> tuple[ScoreReference, str]:
    features = store.get_arrays(ArtifactRef(artifact=artifact, kind="features"))["features"]
    return ScoreReference.of(features), statistics_of(features, None).digest
