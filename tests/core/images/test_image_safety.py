"""Hostile and damaged images: a clear refusal within seconds, never a crash or another picture."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddim_core.diffusion.specs import ImageSpec
from ddim_core.images.load import load_images
from ddim_core.images.sources.decode import BrokenImageError, decode
from ddim_core.images.summary import survey
from tests.picture_files import captioned, cifar, encoded, picture

WITHIN_SECONDS = 5.0  # an image takes milliseconds; a busy machine is allowed the rest
ROUNDS = 60


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, body: bytes, *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    ends = [chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + b"".join(ends)


def bomb() -> bytes:
    """A few kilobytes that would unpack to 30,000 x 30,000 pixels, 2.7 GB."""
    return png(30_000, 30_000, zlib.compress(bytes(2**22), 9))


def text_bomb() -> bytes:
    """A sound small image with a text chunk that unpacks to 64 MB."""
    packer = zlib.compressobj(9)
    zeros = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    small = zlib.compress(bytes(3 * 4 + 1) * 4)
    return png(4, 4, small, chunk(b"zTXt", b"Comment\x00\x00" + zeros))


def animation() -> bytes:
    frames = [Image.fromarray(picture(k)) for k in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb": (bomb, "(900000000 pixels) exceeds limit"),
    "large": (
        lambda: png(10_000, 10_000, zlib.compress(bytes(2**20), 9)),
        "is 10000x10000, 100000000 pixels; at most 89478485 are read",
    ),
    "text bomb": (text_bomb, "cannot be read as an image: Decompressed data too large"),
    "endless strip": (
        lambda: png(1, 100_000, zlib.compress(bytes(4) * 100_000)),
        "is 1x100000; the long side may be at most 64 times the short one",
    ),
    "no pixels": (lambda: png(0, 7, b""), "cannot be read as an image"),
    "sixteen bits": (
        lambda: encoded(np.full((4, 4), 40_000, np.uint16)),
        "images must have 8 bits a channel",
    ),
    "animation": (animation, "has several frames; it must be one still image"),
    "page": (lambda: b"<html><img src=x></html>", "it is none of PNG, JPEG"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "none of PNG"),
    "nothing": (lambda: b"", "it is none of PNG, JPEG"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_is_refused_by_name_in_little_time_and_memory(
    tmp_path: Path, kind: str
) -> None:
    make, wanted = HOSTILE[kind]
    (tmp_path / "good.png").write_bytes(encoded(picture(0)))
    (tmp_path / "bad.png").write_bytes(make())
    tracemalloc.start()
    began = time.perf_counter()
    with pytest.raises(ValueError, match=r"^bad\.png .*max_broken is 0$") as refused:
        load_images(str(tmp_path), "all", 8)
    assert wanted in str(refused.value)
    assert "\n" not in str(refused.value)
    assert time.perf_counter() - began < WITHIN_SECONDS
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()


def damaged(data: bytes, how: str, draw: random.Random) -> bytes:
    if how == "truncated":
        return data[: draw.randrange(len(data) - 12)]  # less than the empty end chunk of a PNG
    flipped = bytearray(data)
    for _ in range(1 if how == "one bit" else 20):
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


@pytest.mark.parametrize("how", ["truncated", "one bit", "many bits"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_damaged_image_is_refused_or_read_and_a_png_never_as_another(form: str, how: str) -> None:
    draw = random.Random(f"{form} {how}")
    whole = encoded(picture(0), form)
    pixels = decode(whole).tobytes()
    refused = 0
    began = time.perf_counter()
    for _ in range(ROUNDS):
        try:
            read = decode(damaged(whole, how, draw))
        except BrokenImageError:
            refused += 1
        else:
            # Only PNG has checksums; in the others a flipped bit is another picture.
            assert form != "PNG" or read.tobytes() == pixels
    assert time.perf_counter() - began < WITHIN_SECONDS
    if form == "PNG" or how != "one bit":
        assert refused > 0
    if form == "PNG" or how == "truncated":
        assert refused > ROUNDS / 2


@pytest.mark.parametrize("how", ["truncated", "one bit", "many bits"])
def test_a_damaged_table_is_refused_or_read_and_its_pngs_never_as_others(
    tmp_path: Path, how: str
) -> None:
    draw = random.Random(how)
    whole = cifar(tmp_path / "good.parquet").read_bytes()
    images = load_images(str(tmp_path / "good.parquet"), "all", None).images
    refused = 0
    for _ in range(ROUNDS):
        (tmp_path / "bad.parquet").write_bytes(damaged(whole, how, draw))
        try:
            read = load_images(str(tmp_path / "bad.parquet"), "all", None)
        except ValueError:
            refused += 1
        else:
            assert np.array_equal(read.images, images)
    assert refused > ROUNDS / 2


def test_an_image_under_another_suffix_is_read_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(picture(0), "PNG"))
    (tmp_path / "b.png").write_bytes(encoded(picture(0), "BMP"))
    images = load_images(str(tmp_path), "all", None).images
    assert np.array_equal(images, [picture(0)] * 2)


def test_what_is_no_image_under_an_image_suffix_is_refused_by_name(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "style")
    listing = folder / "train" / "metadata.jsonl"
    (folder / "train" / "0001.png").write_bytes(listing.read_bytes())
    with pytest.raises(ValueError, match=r"train/0001\.png cannot be read as an image"):
        load_images(str(folder), "train", 8)


@pytest.fixture
def unreadable(tmp_path: Path) -> Path:
    """Seven images, of which four are a dangling link, a link to itself, a pipe and garbage."""
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(encoded(picture(k)))
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "waste.png").write_bytes(b"waste")
    return tmp_path


def test_broken_images_are_counted_and_named_and_left_out_up_to_the_limit(unreadable: Path) -> None:
    with pytest.raises(ValueError, match=r"^gone\.png .* 1 broken images, and max_broken is 0$"):
        load_images(str(unreadable))
    with pytest.raises(ValueError, match=r"gone.*; loop.*; pipe.*; 3 broken images"):
        load_images(str(unreadable), spec=ImageSpec(max_broken=2))
    got = load_images(str(unreadable), spec=ImageSpec(max_broken=4))
    assert np.array_equal(got.images, [picture(k) for k in range(3)])
    assert [name.split()[0] for name in got.broken] == [
        "gone.png",
        "loop.png",
        "pipe.png",
        "waste.png",
    ]
    assert "No such file" in got.broken[0]
    assert "no regular file" in got.broken[2]
    (only,) = survey(str(unreadable)).splits
    assert (only.n, only.broken) == (3, got.broken)


def test_a_data_set_of_broken_images_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "waste.png").write_bytes(b"waste")
    with pytest.raises(ValueError, match="has no image that can be read"):
        load_images(str(tmp_path), spec=ImageSpec(max_broken=10))


def test_a_limit_below_none_is_refused() -> None:
    with pytest.raises(ValueError, match="max_broken is -1"):
        ImageSpec(max_broken=-1)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_small_table_that_unpacks_to_gigabytes_is_refused(suffix: str, tmp_path: Path) -> None:
    once = pa.table({"image": pa.array([bytes(5_000_000)] * 20)})
    many = pa.concat_tables([once] * 10)  # 1 GB, over one memory
    path = tmp_path / f"bomb.{suffix}"
    if suffix == "parquet":
        with pq.ParquetWriter(
            path, once.schema, compression="zstd", dictionary_pagesize_limit=2**30
        ) as file:
            file.write_table(many)
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(path, once.schema, options=options) as writer:
            writer.write_table(many)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_images(str(path), "all", 8)
    folder = tmp_path / "folder"
    folder.mkdir()
    path.rename(folder / f"train.{suffix}")
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_images(str(folder), "all", 8)


def test_an_image_column_of_numbers_or_text_is_none(tmp_path: Path) -> None:
    for value in (10**12, "text"):
        table = pa.table({"image": pa.array([{"bytes": value, "path": "a.png"}])})
        pq.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(ValueError, match="has 0 image columns"):
            load_images(str(tmp_path / "a.parquet"), "all", 8)


def test_a_card_names_no_files_outside_of_its_folder(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "other.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    pq.write_table(pa.table({"image": [b"x"]}), folder / "train.parquet")
    card = "---\nconfigs:\n- config_name: default\n  data_files: ../other.parquet\n---\n"
    (folder / "README.md").write_text(card)
    with pytest.raises(ValueError, match="leads out of its folder"):
        load_images(str(folder), "all", 8)
