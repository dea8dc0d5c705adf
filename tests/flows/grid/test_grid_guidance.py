"""A class-conditional checkpoint in the grid: guidance raises the share of the class asked for."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ddim_core.features.extractor import PixelFeatures
from ddim_core.images.load import load_images
from ddim_core.scores.distances.frechet import frechet_distance
from ddim_core.scores.per_class import PerClass
from ddim_core.statistics.moments import FeatureMoments
from flows.cli.app import app
from tests.flows.grids import GridRun


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A conditional U-Net after 100 steps, which follows its labels."""
    from ddim_core.checkpoints.checkpoint import save_pipeline
    from ddim_core.images.load import load_images
    from ddim_core.networks.specs import ToyModelSpec, TrainSpec
    from ddim_core.networks.training import start, train

    model = ToyModelSpec(n_classes=10)
    spec = TrainSpec(model, steps=100, batch_size=32, warmup_steps=10, ema_decay=0.98)
    digits = load_images("digits", "train")
    state = start(spec)
    for _ in train(spec, digits.images, state, digits.labels):
        pass
    folder = tmp_path_factory.mktemp("checkpoints") / "conditional"
    save_pipeline(folder, state.ema, spec.noise, training_step=spec.steps)
    return str(folder)


@pytest.mark.usefixtures("quick_classifier")
def test_guidance_raises_the_share_of_images_of_the_class_asked_for(
    run_grid: Callable[..., GridRun], conditional: str
) -> None:
    from tasks.storage.cell_rows import read_rows

    run = run_grid(
        checkpoint=conditional, features="classifier", steps=[10], etas=[0.0],
        guidance=[0, 1, 3], n_images=80, shard_size=80,
    )  # fmt: skip
    rows = read_rows(run.result.cells).whole().frame.set_index("guidance_scale")
    print(rows[["class_accuracy", "class_accuracy_low", "class_accuracy_high"]])
    assert rows.loc[3.0, "class_accuracy_low"] > rows.loc[0.0, "class_accuracy_high"]
    assert rows.loc[0.0, "class_accuracy"] < 0.3  # ten classes, and it is not told which
    assert rows["nfe"].to_dict() == {0.0: 10, 1.0: 10, 3.0: 20}
    page = Path(run.result.report).read_text()
    assert "asked class" in page
    assert "From guidance 0 to 3" in page
    scored = PerClass.from_json(rows.loc[3.0, "per_class"])
    assert scored is not None
    assert sum(one.n_found or 0 for one in scored.classes) == 80
    assert [one.n_images for one in scored.classes] == [8] * 10
    assert "8 generated and " in scored.why_not(scored.classes[0])
    assert "it takes 272 of each" in html.unescape(page)
    assert "the classifier finds the classes in" in page


def test_each_class_of_a_cell_has_the_distance_that_its_images_have_by_hand(
    run_grid: Callable[..., GridRun], conditional: str
) -> None:
    from tasks.storage import store
    from tasks.storage.cell_rows import read_rows
    from tasks.storage.store import ArtifactRef

    run = run_grid(
        checkpoint=conditional, features="pixels", steps=[2], etas=[0.0], n_images=700,
        shard_size=350,
    )  # fmt: skip
    (row,) = read_rows(run.result.cells).rows
    scored = PerClass.from_json(row.per_class)
    assert scored is not None
    drawn = np.concatenate([
        store.get_arrays(ArtifactRef(artifact=shard, kind="shard"))["images"]
        for shard in row.image_shards
    ])  # fmt: skip
    digits = load_images("digits", "train")
    assert digits.labels is not None
    features = PixelFeatures(8, 8, 1)
    for label in (0, 7):
        by_hand = frechet_distance(
            FeatureMoments.from_features(features(drawn[label::10])),
            FeatureMoments.from_features(features(digits.images[digits.labels == label])),
        )
        one = scored.classes[label]
        assert (one.name, one.n_images, one.n_found) == (str(label), 70, None)
        assert one.fid is not None
        assert one.fid.fid == pytest.approx(by_hand, rel=1e-9)
        assert one.fid.low < one.fid.fid < one.fid.high
    assert "FID less bias" in Path(run.result.report).read_text()
    told = CliRunner().invoke(
        app, ["score", row.cell_digest[:10], "digits", "--split", "train", "--per-class", "--json"]
    )
    classes = json.loads(told.stdout)["per_class"]["classes"]
    assert [one["fid"] for one in classes] == [
        pytest.approx(one.fid.fid, rel=1e-9) for one in scored.classes if one.fid
    ]


def test_another_number_format_and_a_card_make_other_cells_of_nearly_the_same_images(
    run_grid: Callable[..., GridRun], toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.storage import store
    from tasks.storage.cell_rows import read_rows
    from tasks.storage.store import ArtifactRef

    def images(row: Any) -> np.ndarray:
        shard = ArtifactRef(artifact=row.image_shards[0], kind="shard")
        return store.get_arrays(shard)["images"].astype(int)

    asked: dict[str, Any] = {
        "checkpoint": toy, "features": "pixels", "steps": [3], "etas": [0.0],
        "samplers": ["ddim", "dpmpp_2m"], "n_images": 8, "shard_size": 8,
    }  # fmt: skip
    monkeypatch.setattr("flows.requests.grid.SCORED_ON_CARD", 8)
    cases: list[dict[str, Any]] = [{}, {"dtype": "bfloat16"}, {"device": "cpu:0,cpu:1"}]
    runs = [run_grid(**asked, **case).result for case in cases]
    again = run_grid(**asked, device="cpu:1", workers=1).result
    assert runs[2] is not None
    assert again is not None
    assert (runs[2].images_drawn, again.images_drawn) == (16, 0)  # which card is no part of a cell
    assert again.cells == runs[2].cells
    rows = [{row.sampler: row for row in read_rows(run.cells).whole().rows} for run in runs if run]
    for sampler in asked["samplers"]:
        whole, half, carded = (row[sampler] for row in rows)
        assert len({row.cell_digest for row in (whole, half, carded)}) == 3
        assert (whole.device, whole.dtype, whole.images_at_once) == ("cpu", "float32", None)
        assert (half.dtype, carded.dtype) == ("bfloat16", "float32")
        assert (carded.device, carded.images_at_once, carded.compiled) == ("cpu", 256, False)
        apart = np.abs(images(whole) - images(half))
        assert 0.0 < apart.mean() < 4.0  # levels of 255
        assert np.abs(images(whole) - images(carded)).max() <= 1
        assert carded.fid == pytest.approx(whole.fid, rel=0.01)
        by = [json.loads(row.protocol)["versions"] for row in (whole, half, carded)]
        assert [one.get("scores in float64") for one in by] == [None, None, "torch on cpu"]


def test_guidance_of_an_unconditional_checkpoint_is_refused_before_anything_is_drawn(
    run_grid: Callable[..., GridRun], toy: str
) -> None:
    from flows.fid_grid import fid_grid

    with pytest.raises(ValueError, match="guidance is 3; the checkpoint is unconditional"):
        fid_grid(checkpoint=toy, guidance=[3.0], features="pixels", n_images=4)
    with pytest.raises(ValueError, match="turn class_conditional on"):
        fid_grid(guidance=[3.0], n_images=4)
