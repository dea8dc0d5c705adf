"""The score task: bits that do not depend on who made which shard first."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddim_core.devices.float64 import OnCard
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


def test_a_card_whose_memory_runs_out_leaves_the_score_to_a_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    extractor = store.put(PixelFeatures(2, 2, 3).record.to_bytes(), "extractor")
    told = [stored(shard) for shard in SHARDS], stored(REFERENCE), extractor
    wanted = score_cell.fn(*told, Execution())
    on_card = score_cell.fn(*told, Execution(device="cpu:0"))
    assert on_card.versions == wanted.versions | {"scores in float64": "torch on cpu"}
    assert on_card.score.fid == pytest.approx(wanted.score.fid, rel=1e-9)
    left = [2]

    def put(self: OnCard, x: Any, plain: Any = OnCard.put) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        made: torch.Tensor = plain(self, x)
        return made

    monkeypatch.setattr(OnCard, "put", put)
    with caplog.at_level(logging.WARNING):
        found = score_cell.fn(*told, Execution(device="cpu:0"))
    assert lasting(found) == lasting(wanted)
    assert "memory of cpu:0 ran out" in caplog.messages[-1]
    assert "--batch-size" in caplog.messages[-1]
