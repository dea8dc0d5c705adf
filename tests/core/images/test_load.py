"""Images in, and the one place where floats become bytes."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddim_core.images.load import load_images, open_source
from ddim_core.images.pixels import from_uint8, to_uint8


def write_image(path: Path, size: tuple[int, int] = (12, 8), level: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 0, 0)).save(path)


def png(level: int, size: tuple[int, int] = (10, 10)) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, level).save(buffer, "png")
    return buffer.getvalue()


def test_every_byte_survives_the_way_to_floats_and_back() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(2, 8, 16, 1)
    assert np.array_equal(to_uint8(from_uint8(images)), images)


def test_bytes_are_rounded_to_the_nearest_level_and_clamped() -> None:
    levels = torch.tensor([-7.0, 0.4, 0.6, 100.4, 100.6, 300.0, 127.5])
    x = (levels / 127.5 - 1.0).reshape(1, 1, 1, 7)
    assert x[0, 0, 0, 6] == 0.0  # the one exact half: 127.5 has 128 as its even neighbour
    assert to_uint8(x).ravel().tolist() == [0, 0, 1, 100, 101, 255, 128]


def test_float_layout_is_channels_first_and_bytes_are_channels_last() -> None:
    images = np.zeros((1, 2, 3, 3), dtype=np.uint8)
    images[0, 1, 2, 0] = 255
    x = from_uint8(images)
    assert x.shape == (1, 3, 2, 3)
    assert x.dtype == torch.float32
    assert x[0, 0, 1, 2] == 1.0
    assert x.sum() == 1.0 - (x.numel() - 1)


def test_a_pixel_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 4 pixels"):
        to_uint8(torch.tensor([0.0, float("nan"), 0.0, 0.0]).reshape(1, 1, 2, 2))


def test_digits_splits_are_fixed_disjoint_and_complete() -> None:
    train, test, everything = (load_images("digits", s, 8) for s in ("train", "test", "all"))
    assert (len(train), len(test), len(everything)) == (1297, 500, 1797)
    rows = {image.tobytes() for image in test.images}
    assert not rows & {image.tobytes() for image in train.images}
    # The recorded split: a changed library or rule must not move images between splits unseen.
    assert hashlib.sha256(test.images.tobytes()).hexdigest() == RECORDED_TEST_SPLIT


RECORDED_TEST_SPLIT = "8fd8a393fb6abc31cf4d576eaea1f0b1cfd9b7fffaa48ae7d0d2d7e3864ec615"


def test_a_folder_per_class_gives_labels_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("dog/b.png", "cat/a.jpg", "cat/z.JPEG"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    got = load_images(str(tmp_path), "all", 4)
    assert got.images.shape == (3, 4, 4, 3)
    assert got.labels is not None
    assert got.labels.tolist() == [0, 0, 1]
    assert got.name == tmp_path.name


def test_the_layout_of_afhq_gives_splits_with_classes(tmp_path: Path) -> None:
    for name in ("train/cat/1.png", "train/wild/2.png", "val/cat/3.png"):
        write_image(tmp_path / name)
    got = {split: load_images(str(tmp_path), split, 4) for split in ("train", "val", "all")}
    labels = {k: v.labels.tolist() for k, v in got.items() if v.labels is not None}
    assert labels == {"train": [0, 1], "val": [0], "all": [0, 1, 0]}
    with pytest.raises(ValueError, match="no split 'test'; it has all, train, val"):
        load_images(str(tmp_path), "test", 4)


def test_a_flat_folder_has_no_labels_and_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for level in (30, 10, 20):
        write_image(tmp_path / f"{level}.png", level=level)
    got = load_images(str(tmp_path), "all", None)
    assert got.labels is None
    assert got.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert got.images.shape == (3, 8, 12, 3)


@pytest.mark.parametrize("upright", [False, True])
def test_the_centre_is_kept_and_edges_are_antialiased(tmp_path: Path, upright: bool) -> None:
    pixels = np.zeros((64, 128, 3), dtype=np.uint8)
    pixels[:, ::2] = 255  # finer than the target: without antialiasing, stripes or one colour
    pixels[:, :32] = pixels[:, 96:] = 7  # outside of the centre square
    native = pixels.transpose(1, 0, 2) if upright else pixels
    Image.fromarray(np.ascontiguousarray(native)).save(tmp_path / "stripes.png")
    image = load_images(str(tmp_path), "all", 8).images[0]
    image = image.transpose(1, 0, 2) if upright else image
    assert image.shape == (8, 8, 1)  # grey stays grey
    # The bicubic kernel reaches 2 target pixels; inside, the mean of 0 and 255 is 127 or 128.
    assert np.abs(image[:, 2:6].astype(int) - 127).max() <= 1


def test_parquet_of_hugging_face_form_is_read_with_labels(tmp_path: Path) -> None:
    path = tmp_path / "test.parquet"
    cells = [{"bytes": png(40), "path": None}, {"bytes": png(90), "path": "x.png"}]
    pq.write_table(pa.table({"img": cells, "label": [3, 1]}), path)
    got = load_images(str(path), "test", None)
    assert got.images.shape == (2, 10, 10, 1)
    assert got.images[:, 5, 5, 0].tolist() == [40, 90]
    assert got.labels is not None
    assert got.labels.tolist() == [3, 1]


def test_an_unknown_data_set_is_refused_with_what_there_is() -> None:
    with pytest.raises(
        ValueError, match=r"'mnist'.*digits, emoji, smileys, a folder.*parquet.*owner/name"
    ):
        load_images("mnist", "train", 8)


@pytest.mark.parametrize("bad", ["garbage", "truncated"])
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, bad: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "good.png")
    half = (tmp_path / "good.png").read_bytes()[:1500]
    (tmp_path / "bad.png").write_bytes(b"garbage" if bad == "garbage" else half)
    with pytest.raises(ValueError, match=r"bad\.png cannot be read"):
        load_images(str(tmp_path), "all", 4)


def test_sizes_that_differ_need_a_resolution(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", (8, 8))
    write_image(tmp_path / "b.png", (9, 8))
    with pytest.raises(ValueError, match="2 sizes"):
        load_images(str(tmp_path), "all", None)


@pytest.mark.parametrize(
    "name", ["sets/train.parquet", "sets/x.zip", "sets/x.tar.gz", "sets/x.npz", "x.NPY"]
)
def test_a_file_that_is_not_there_is_no_name_on_the_hub(name: str) -> None:
    from ddim_core.lora.data import require_data

    with pytest.raises(ValueError, match=f"there is no file {name!r}"):
        open_source(name)
    with pytest.raises(ValueError, match=f"there is no data {name!r}"):
        require_data(name)


def test_a_name_that_the_hub_does_not_give_may_be_a_mistyped_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    def away(*_: object, **__: object) -> None:
        raise ConnectionError("it does not answer")

    monkeypatch.setattr(datasets, "load_dataset_builder", away)
    with pytest.raises(
        ValueError, match=r"'pictures/cats' cannot .*no file or folder of that name here"
    ):
        open_source("pictures/cats")
