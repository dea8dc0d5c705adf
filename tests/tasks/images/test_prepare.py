"""Data sets in the store: one content one artefact, opened by `datasets`, sampled and scored."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.diffusion.specs import Execution, GridCell, ImageSpec, SamplerSpec
from ddim_core.features.registry import ExtractorChoice
from ddim_core.images.load import load_images
from ddim_core.networks.specs import ClassifierSpec, ToyModelSpec, TrainSpec
from ddim_core.networks.training import start
from tasks.cells.embed import embed_images
from tasks.cells.extractor import ready_extractor, train_extractor
from tasks.cells.score import score_cell
from tasks.images.prepare import content_of, notes_on, prepare_data, prepared
from tasks.sampling.native import sample_shard
from tasks.storage import places, store
from tests.picture_files import afhq, captioned, cifar, encoded, picture


def prepare(dataset: str, split: str = "all", resolution: int | None = 8, **more: Any) -> Any:
    spec = more.get("spec", ImageSpec())
    return prepare_data.fn(content_of(dataset, spec), split, resolution, dataset, **more)


def test_copies_have_one_artefact_and_a_changed_pixel_another(tmp_path: Path) -> None:
    one = captioned(tmp_path / "one")
    shutil.copytree(one, tmp_path / "elsewhere" / "copy")
    first, second = prepare(str(one)), prepare(str(tmp_path / "elsewhere" / "copy"))
    assert first.artifact == second.artifact
    pixels = picture(0).copy()
    pixels[5, 7, 2] ^= 1  # one level, of which a resized image shows nothing
    (one / "train" / "0000.png").write_bytes(encoded(pixels))
    third = prepare(str(one))
    assert third.artifact != first.artifact
    assert np.array_equal(prepared(third).images, prepared(first).images)


def test_tasks_and_datasets_read_one_artefact(tmp_path: Path) -> None:
    import datasets

    ref = prepare(str(afhq(tmp_path / "animals")), "train")
    loaded = load_images(str(tmp_path / "animals"), "train", 8)
    arrays = store.get_arrays(ref)
    assert np.array_equal(arrays["images"], loaded.images)
    assert np.array_equal(arrays["labels"], loaded.labels)  # type: ignore[arg-type]  # not None
    path = places.local_dir("store", ref.artifact[:2], ref.artifact)
    opened = datasets.load_dataset(
        "arrow", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert np.array_equal([np.asarray(row["image"]) for row in opened], loaded.images)
    assert opened.features["label"].names == ["cat", "dog", "wild"]


def test_digits_are_the_arrays_they_always_were() -> None:
    arrays = store.get_arrays(prepare("digits", "train", None))
    assert arrays["images"].shape == (1297, 8, 8, 1)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].dtype == np.int64
    assert arrays["images"].max() == 255


def test_what_a_reader_must_know_is_said(tmp_path: Path) -> None:
    emoji = prepare("emoji", "test", 16, spec=ImageSpec(skin_tones=False))
    assert emoji.resize == "pillow-bicubic"
    assert notes_on(emoji) == [
        "Real images: Twemoji, (c) Twitter, Inc. and other contributors, CC-BY 4.0."
    ]
    folder = captioned(tmp_path / "style")
    for listing in folder.rglob("metadata.jsonl"):
        listing.unlink()
    (folder / "train" / "0002.png").write_bytes(b"waste")
    broken = prepare(str(folder), spec=ImageSpec(max_broken=1))
    (note,) = notes_on(broken, broken)
    assert note.startswith("Real images left out, because they are broken (1): train/0002.png ")
    assert broken.n == 3
    assert prepare(str(tmp_path / "style"), resolution=None, spec=ImageSpec(1)).resize == "native"


def test_a_data_set_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    folder = str(afhq(tmp_path / "animals"))
    with pytest.raises(ValueError, match="changed while they were read"):
        prepare_data.fn("another content", "train", 8, folder)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> store.ArtifactRef:
    """An untrained RGB network of 8x8 pixels."""
    spec = TrainSpec(ToyModelSpec(resolution=8, channels=3), steps=1)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_pipeline(folder, start(spec).ema, spec.noise, training_step=0)
    return store.put_folder(folder)


@pytest.mark.parametrize("form", ["afhq", "cifar", "captioned", "grey"])
def test_every_form_is_scored_against_a_checkpoint(
    tmp_path: Path, form: str, checkpoint: store.ArtifactRef
) -> None:
    made = {
        "afhq": lambda: afhq(tmp_path / "animals"),
        "cifar": lambda: cifar(tmp_path / "test.parquet"),
        "captioned": lambda: captioned(tmp_path / "style"),
        "grey": lambda: _grey(tmp_path / "grey"),
    }[form]()
    real = prepare(str(made), channels=3)
    assert (real.channels, real.resolution) == (3, 8)
    work = Execution(batch_size=4)
    if real.n_classes:
        extractor = train_extractor.fn(ClassifierSpec(steps=2), real, None, work)
    else:
        extractor = ready_extractor.fn(ExtractorChoice("pixels"))
    cell = GridCell(SamplerSpec(steps=2))
    shard = sample_shard.fn(cell, checkpoint, 0, 4, work)
    features = [embed_images.fn(ref, extractor, work) for ref in (shard, real)]
    score = score_cell.fn(features[:1], features[1], extractor, Execution()).score
    assert score.n_reference == real.n
    assert np.isfinite([score.fid, score.kid]).all()


def _grey(folder: Path) -> Path:
    folder.mkdir()
    for k in range(4):
        Image.fromarray(picture(k)[..., 0]).save(folder / f"{k}.png")
    return folder
