"""What a grid computes again, and what it does not: asked of the Prefect API, and of the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GridRun, lasting

from ddim_core.checkpoint import load_checkpoint
from ddim_core.pixels import to_uint8
from ddim_core.sampling import ImageNoise, sample
from ddim_core.specs import SamplerSpec
from tasks import store

pytestmark = pytest.mark.timeout(180)
RunGrid = Callable[..., GridRun]


def test_unchanged_rerun_computes_nothing(run_grid: RunGrid) -> None:
    asked = {"checkpoint": "", "train_steps": 20, "seed": 100, "features": "classifier"}
    first = run_grid(**asked)
    again = run_grid(**asked)
    assert first.result["images_drawn"] == 50
    assert first.computed["sample-shard"] == 6
    assert first.computed["train-toy"] == first.computed["train-extractor"] == 1
    assert again.result == {**first.result, "images_drawn": 0}
    assert again.computed == Counter()
    assert {name for name, state in again.tasks if state == "Cached"} == {
        "prepare-data", "train-toy", "train-extractor", "embed-images", "sample-shard",
        "score-cell", "render-report",
    }  # fmt: skip
    assert again.rows.to_dict() == first.rows.to_dict() or lasting(again.rows) == lasting(first.rows)
