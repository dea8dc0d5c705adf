"""Prepared images as Arrow and Parquet: what `datasets` reads in them is what we wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddim_core.images.export import export_parquet, export_png
from ddim_core.images.image_set import ImageSet
from ddim_core.images.image_table import from_arrow, to_arrow
from ddim_core.images.load import load_images
from tests.picture_files import afhq, captioned


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageSet]:
    place = tmp_path_factory.mktemp("sets")
    return {
        "digits": load_images("digits", "test"),
        "classes": load_images(str(afhq(place / "animals")), "train", 16),
        "captions": load_images(str(captioned(place / "style")), "train", 16),
    }


@pytest.mark.parametrize("kind", ["digits", "classes", "captions"])
def test_a_set_survives_the_stored_form(
    sets: dict[str, ImageSet], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = sets[kind]
    monkeypatch.setattr("ddim_core.images.image_table.BATCH_BYTES", 3 * written.images[0].nbytes)
    read = from_arrow(to_arrow(written))
    assert np.array_equal(read.images, written.images)
    assert read.images.flags.writeable
    assert np.array_equal(read.labels, written.labels)  # type: ignore[arg-type]  # or both None
    for name in ("class_names", "captions", "fingerprint", "licence", "resized"):
        assert getattr(read, name) == getattr(written, name)


def assert_shows(images: ImageSet, opened: object) -> None:
    rows = list(opened)  # type: ignore[call-overload]
    assert len(rows) == len(images)
    for k, row in enumerate(rows):
        pixels = np.asarray(row["image"])
        assert np.array_equal(pixels.reshape(images.images[k].shape), images.images[k])
        if images.labels is not None:
            assert row["label"] == images.labels[k]
        if images.captions is not None:
            assert row["caption"] == images.captions[k]


@pytest.mark.parametrize("kind", ["digits", "classes", "captions"])
def test_datasets_opens_the_stored_form(
    sets: dict[str, ImageSet], kind: str, tmp_path: Path
) -> None:
    import datasets

    path = tmp_path / "0123abcd"  # a name of the store: no suffix
    path.write_bytes(to_arrow(sets[kind]))
    opened = datasets.load_dataset(
        "arrow", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert_shows(sets[kind], opened)
    assert_shows(sets[kind], datasets.Dataset.from_file(str(path)))
    if kind != "captions":
        assert opened.features["label"].names == list(sets[kind].class_names)


@pytest.mark.parametrize("kind", ["digits", "classes", "captions"])
def test_datasets_opens_what_is_exported(
    sets: dict[str, ImageSet], kind: str, tmp_path: Path
) -> None:
    import datasets

    images = sets[kind]
    export_parquet([images], tmp_path / "out")
    files = str(tmp_path / "out" / "data" / f"{images.split}-00000-of-00001.parquet")
    cache = str(tmp_path / "cache")
    as_files = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert_shows(images, as_files)
    as_folder = datasets.load_dataset(str(tmp_path / "out"), split=images.split, cache_dir=cache)
    assert_shows(images, as_folder)
    ours = load_images(str(tmp_path / "out"), images.split)
    assert np.array_equal(ours.images, images.images)
    assert (ours.class_names, ours.captions) == (images.class_names, images.captions)
    assert not ours.resized


def test_exported_pngs_are_the_images_with_their_captions(
    sets: dict[str, ImageSet], tmp_path: Path
) -> None:
    images = sets["captions"]
    export_png([images], tmp_path / "out")
    first = Image.open(tmp_path / "out" / "train" / "000000.png")
    assert np.array_equal(np.asarray(first), images.images[0])
    again = load_images(str(tmp_path / "out"), "train")
    assert np.array_equal(again.images, images.images)
    assert again.captions == images.captions


def test_an_export_never_writes_over_anything(sets: dict[str, ImageSet], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    for export in (export_parquet, export_png):
        with pytest.raises(ValueError, match="is there already"):
            export([sets["classes"]], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_card_of_emoji_says_their_licence(tmp_path: Path) -> None:
    export_parquet([load_images("emoji", "test", 16)], tmp_path / "emoji")
    card = (tmp_path / "emoji" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n---\n")
    assert "`Twemoji, (c) Twitter, Inc. and other contributors, CC-BY 4.0`" in card
