"""The score task: bits that do not depend on who made which shard first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ddim_core.diffusion.specs import Execution
from ddim_core.features.extractor import PixelFeatures
from tasks.cells.score import ScoredCell, score_cell
from tasks.storage import store
from tasks.storage.store import ArtifactRef

RANDOM = np.random.default_rng(0)
SHARDS = [RANDOM.normal(size=(n, 12)).astype(np.float32) for n in (9, 7, 8)]
REFERENCE = RANDOM.normal(size=(30, 12)).astype(np.float32) + 0.5


def stored(features: np.ndarray) -> ArtifactRef:
    return store.put_arrays({"features": features}, "features")


def lasting(scored: ScoredCell) -> ScoredCell:
    return replace(scored, created_at="")


def test_shards_are_folded_in_order_of_image_index_whoever_was_first() -> None:
    extractor = store.put(PixelFeatures(2, 2, 3).record.to_bytes(), "extractor")
    first_made_first = [stored(shard) for shard in SHARDS]
    last_made_first = [stored(shard + 0) for shard in SHARDS[::-1]][::-1]
    one = score_cell.fn(first_made_first, stored(REFERENCE), extractor, Execution())
    two = score_cell.fn(last_made_first, stored(REFERENCE), extractor, Execution())
    assert lasting(one) == lasting(two)  # bit-equal
    turned = score_cell.fn(first_made_first[::-1], stored(REFERENCE), extractor, Execution())
    assert turned.score.fid_leave_one_out != one.score.fid_leave_one_out  # the order does count
    assert len(one.statistics_digest) == 64
    assert one.further.cmmd is None
    assert one.further.inception_score is None
