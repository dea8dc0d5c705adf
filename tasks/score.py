"""Features of a cell and of the reference in, scores with intervals out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np

from ddim_core.score import ScoreReference, score_features
from tasks import store
from tasks.caching import cached_task
from tasks.store import ArtifactRef

SHARDS_IN_MEMORY = 8  # 64 MB of 1,024 images at d = 2048


@cached_task
def score_cell(features: list[ArtifactRef], reference: ArtifactRef) -> dict[str, Any]:
    """Scores one cell; its shards are folded in order of image index, whoever made them first."""
    score = score_features(StoredShards(features), _reference(reference["artifact"]))
    return {**asdict(score), "created_at": datetime.now(UTC).isoformat()}


class StoredShards(Sequence[np.ndarray]):
    """Stored feature shards, each read when it is asked for; the newest few stay in memory."""

    def __init__(self, refs: list[ArtifactRef]) -> None:
        self.refs = refs
        self.read = lru_cache(maxsize=SHARDS_IN_MEMORY)(self._read)

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, index: Any) -> Any:
        return (
            [self.read(i) for i in range(len(self))[index]]
            if isinstance(index, slice)
            else (self.read(range(len(self))[index]))
        )

    def _read(self, index: int) -> np.ndarray:
        return store.get_arrays(self.refs[index])["features"]


@lru_cache(maxsize=2)  # a grid's cells share theirs
def _reference(artifact: str) -> ScoreReference:
    ref = ArtifactRef(artifact=artifact, kind="features")
    return ScoreReference.of(store.get_arrays(ref)["features"])
