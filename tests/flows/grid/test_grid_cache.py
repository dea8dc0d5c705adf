"""What a grid computes again and what it does not, asked of the Prefect API and of the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flows.grid.extractor
from ddim_core.checkpoints.checkpoint import load_checkpoint
from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.sampling import ImageNoise, sample
from ddim_core.diffusion.specs import GridCell, SamplerSpec
from ddim_core.images.load import load_images
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.specs import ClassifierSpec
from ddim_core.scores.cell_score import score_features
from tasks.sampling.shards import DrawnImages
from tasks.storage import store
from tests.flows.grids import GridRun, lasting

pytestmark = pytest.mark.timeout(180)
RunGrid = Callable[..., GridRun]


def drawn_directly(checkpoint: str, cell: GridCell, n: int) -> np.ndarray:
    """Images 0..n-1 of a cell in one batch by `ddim_core` alone: no shard, store or Prefect."""
    loaded = load_checkpoint(Path(checkpoint))
    noise = ImageNoise(cell.seed, range(n), (loaded.channels, 8, 8))
    with torch.inference_mode():
        *_, last = sample(loaded.model, loaded.schedule, cell.sampler, noise.x_T(), noise)
    return to_uint8(last.x)


def stored_images(checkpoint: str, cell: GridCell, shards: list[tuple[int, int]]) -> np.ndarray:
    """A cell's images as the store names them."""
    ref = store.put_folder(Path(checkpoint))
    parts = []
    for start, stop in shards:
        name = digest(code_digest("tasks.sampling.native"), cell, ref, start)
        parts.append(store.get_arrays(store.bound(name, DrawnImages)[str(stop - start)])["images"])
    return np.concatenate(parts)


def test_unchanged_rerun_computes_nothing(
    run_grid: RunGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ClassifierSpec(steps=10)
    monkeypatch.setattr(flows.grid.extractor, "ClassifierSpec", lambda: quick)
    asked: dict[str, Any] = {
        "checkpoint": "", "train_steps": 3, "seed": 101, "features": "classifier",
    }  # fmt: skip
    first, again = run_grid(**asked), run_grid(**asked)
    assert first.result.images_drawn == 50
    assert first.computed["train-toy"] == first.computed["train-extractor"] == 1
    assert first.computed["sample-shard"] == 6
    assert again.computed == Counter()
    named = {
        "fid-grid toy-digits 1 S x 2 lines",
        "S=2 eta=0 shard 1",
        "train toy 8x8 3 steps",
    }
    for run in (first, again):
        assert all(any(name.startswith(one) for name in run.names) for one in named)
    assert again.from_cache == {
        "prepare-data", "train-toy", "train-extractor", "embed-images", "sample-shard",
        "score-cell", "render-report", "protocol-matrix",
    }  # fmt: skip
    assert again.result == replace(first.result, images_drawn=0)
    assert again.rows == first.rows
    assert len(again.rows) == 2


def test_more_images_draw_only_the_new_ones_and_agree_with_a_direct_computation(
    run_grid: RunGrid, toy: str
) -> None:
    asked: dict[str, Any] = {"seed": 102, "etas": [0.0, 0.7]}
    cells = [GridCell(SamplerSpec(2, eta), seed=102) for eta in asked["etas"]]
    few = run_grid(n_images=25, **asked)
    first = [stored_images(toy, c, [(0, 10), (10, 20), (20, 25)]) for c in cells]
    more = run_grid(n_images=40, **asked)
    assert few.result.images_drawn == 2 * 25
    assert more.result.images_drawn == 2 * 15
    assert more.computed["sample-shard"] == 2 * 2  # the shorter shard is completed, one is new
    reference = load_images("digits", "train").images
    for cell, beginning, row in zip(
        cells, first, sorted(more.rows, key=lambda r: r["eta"]), strict=True
    ):
        images = stored_images(toy, cell, [(0, 10), (10, 20), (20, 30), (30, 40)])
        scratch = drawn_directly(toy, cell, 40)
        np.testing.assert_array_equal(images[:25], beginning)
        np.testing.assert_array_equal(images, scratch)
        features = [s.reshape(10, -1).astype(np.float32) / 255 for s in np.split(scratch, 4)]
        score = score_features(
            features, reference.reshape(len(reference), -1).astype(np.float32) / 255
        )
        assert row["eta"] == cell.sampler.eta
        assert [row[k] for k in ("n_images", "fid", "fid_low", "fid_high", "kid")] == [
            40, score.fid, score.fid_low, score.fid_high, score.kid,
        ]  # fmt: skip


def test_fewer_images_draw_nothing_where_shards_are_whole(run_grid: RunGrid) -> None:
    run_grid(n_images=20, seed=103)
    fewer = run_grid(n_images=10, seed=103)
    assert fewer.result.images_drawn == 0
    assert [row["n_images"] for row in fewer.rows] == [10, 10]


def test_new_cell_samples_only_that_cell(run_grid: RunGrid) -> None:
    run_grid(seed=104, steps=[2], etas=[0.0, 1.0])
    wider = run_grid(seed=104, steps=[2, 4], etas=[0.0, 1.0])
    assert wider.result.images_drawn == 2 * 25
    shards, cells = 3, 2
    assert wider.computed == {
        "sample-shard": shards * cells, "embed-images": shards * cells, "score-cell": cells,
        "render-report": 1,
    }  # fmt: skip
    assert sorted((row["steps"], row["eta"]) for row in wider.rows) == [
        (2, 0.0), (2, 1.0), (4, 0.0), (4, 1.0),
    ]  # fmt: skip


def test_cells_of_one_grid_share_x_T_and_another_seed_shares_nothing(
    run_grid: RunGrid, toy: str
) -> None:
    one = drawn_directly(toy, GridCell(SamplerSpec(2), seed=105), 4)
    other = drawn_directly(toy, GridCell(SamplerSpec(2), seed=106), 4)
    assert not np.array_equal(one, other)
    grids = [run_grid(seed=seed, etas=[0.0], n_images=10) for seed in (105, 106)]
    assert [grid.result.images_drawn for grid in grids] == [10, 10]
    assert grids[0].rows[0]["fid"] != grids[1].rows[0]["fid"]


def test_batch_size_workers_and_threads_change_no_pixel_and_no_score(
    run_grid: RunGrid, toy: str, wipe: Callable[[], None]
) -> None:
    ways = [(3, 1, 1), (7, 2, 2), (100, 2, 1)]
    cells = [GridCell(SamplerSpec(2, eta), seed=107) for eta in (0.0, 1.0)]
    shards = [(0, 10), (10, 20), (20, 25)]
    images, rows = [], []
    for batch_size, workers, threads in ways:
        wipe()
        grid = run_grid(workers=workers, batch_size=batch_size, threads=threads, seed=107)
        assert grid.result.images_drawn == 50
        images.append([stored_images(toy, cell, shards).tobytes() for cell in cells])
        rows.append(lasting(grid.rows))
    assert images[0] == images[1] == images[2]
    assert rows[0] == rows[1] == rows[2]
