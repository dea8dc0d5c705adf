"""Features of a cell and of the reference in, scores with intervals out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from ddim_core.common.versions import score_versions
from ddim_core.devices.float64 import ON_CPU, Float64, float64_on
from ddim_core.devices.names import is_card, kind_of
from ddim_core.diffusion.specs import Execution
from ddim_core.scores.cell_score import CellScore, ScoreReference, score_features
from ddim_core.scores.further_scores import FurtherScores, further_scores
from ddim_core.scores.set_score import FeatureSet, frechet_of_pair
from ddim_core.statistics.npz import statistics_of
from ddim_core.statistics.rows import FeatureRows
from tasks.cells.extractor_memory import extractor_in_memory, record_of
from tasks.cells.reference import STATISTICS, known_features
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

SHARDS_IN_MEMORY = 8  # 64 MB of 1,024 images at d = 2048

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredCell:
    """A cell's scores.

    Attributes:
        score, further: What the features allow.
        statistics_digest: Of the reference's.
        versions: Of the libraries, and the kind of card that scored it, if one did.
        created_at: As ISO text.
    """

    score: CellScore
    further: FurtherScores
    statistics_digest: str
    versions: dict[str, str]
    created_at: str


@cached_task
def score_cell(
    features: Sequence[ArtifactRef],
    reference: ArtifactRef,
    extractor: ArtifactRef,
    execution: Execution,
    arithmetic: str = "",
) -> ScoredCell:
    """Scores one cell; its shards are folded in order of image index, whoever made them first.

    Args:
        features, reference, extractor: Of the cell, of the real images, and what made both.
        execution: How; a card does what looks at all pairs, and products of large matrices. Where
            its memory runs out, a CPU does it all.
        arithmetic: Of the features' float32 on a card, as of `embed_images`: scores are float64,
            but tasks in one process share the switch.
    """
    torch.set_num_threads(execution.threads)
    told, versions = (features, reference, extractor), score_versions()
    if not is_card(execution.device):
        return _scored(*told, ON_CPU, versions)
    try:
        on_card = {"scores in float64": f"torch on {kind_of(execution.device)}"}
        with card(execution.device, arithmetic or "float32") as device:
            return _scored(*told, float64_on(device), versions | on_card)
    except (torch.OutOfMemoryError, MemoryError) as error:
        reason = str(error).splitlines()[0]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning(
        "memory of %s ran out for a score (%s); a CPU works it out, slower: a smaller --batch-size "
        "leaves more of it",
        execution.device, reason,
    )  # fmt: skip
    return _scored(*told, ON_CPU, versions)


def _scored(
    features: Sequence[ArtifactRef],
    reference: ArtifactRef,
    extractor: ArtifactRef,
    on: Float64,
    versions: dict[str, str],
) -> ScoredCell:
    shards = StoredShards(features)
    if reference.kind == STATISTICS:
        found = frechet_of_pair(FeatureSet("cell", shards), known_features(reference), on)
        score, real, statistics_digest = found.score, None, found.statistics_digest
    else:
        against, statistics_digest = _reference(reference.artifact, on)
        score, real = score_features(shards, against), against.features
    more = FurtherScores()
    if record_of(extractor).extractor != "pixels":
        network = extractor_in_memory(extractor, ())
        more = further_scores(network, FeatureRows.of(shards), real, on)
    created_at = datetime.now(UTC).isoformat()
    return ScoredCell(score, more, statistics_digest, versions, created_at)


class StoredShards(Sequence[np.ndarray]):
    """Stored feature shards, each read when it is asked for; the newest few stay in memory."""

    def __init__(self, refs: Sequence[ArtifactRef]) -> None:
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


def _reference(artifact: str, on: Float64) -> tuple[ScoreReference, str]:
    return _references(on)(artifact)


@cache
def _references(on: Float64) -> Callable[[str], tuple[ScoreReference, str]]:
    """Reads references, which a grid's cells share; of each device the latest two are kept."""

    @lru_cache(maxsize=2)
    def read(artifact: str) -> tuple[ScoreReference, str]:
        features = store.get_arrays(ArtifactRef(artifact=artifact, kind="features"))["features"]
        return ScoreReference.of(features, on=on), statistics_of(features, None).digest

    return read
