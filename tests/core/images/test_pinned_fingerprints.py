"""What was read before archives, arrays and tables of metadata were: the same names, still.

The digests were computed with the code of commit 2f119bf. Cached cells of old DDIM_DATA depend on
them: a change here throws away what people have computed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddim_core.common.digest import digest
from ddim_core.images.load import load_images, open_source
from ddim_core.images.sources.decode import netpbm
from ddim_core.lora.data import Captioned, read_captioned, read_photos


def drawn(seed: int) -> bytes:
    """A small picture whose bytes depend on no codec."""
    pixels = np.arange(8 * 6 * 3, dtype=np.uint16).reshape(8, 6, 3) * (seed + 3) % 256
    return netpbm(pixels.astype(np.uint8))


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def animals(folder: Path) -> Path:
    for k, place in enumerate(
        ("train/cat/b.ppm", "train/cat/a.PPM", "train/dog/x.ppm", "val/cat/ü.ppm")
    ):
        put(folder / place, drawn(k))
    put(folder / "notes.txt", b"no image")
    put(folder / ".hidden.ppm", b"no image")
    return folder


def style(folder: Path) -> Path:
    captions = ["a red dog", " spaces kept ", "naïve ünï ☕"]
    lines = []
    for k, caption in enumerate(captions):
        put(folder / "train" / "sub" / f"{k}.png", drawn(k))
        lines.append(
            json.dumps(
                {"file_name": f"sub/{k}.png", "text": caption, "more": [1]}, ensure_ascii=k == 1
            )
        )
    put(folder / "train" / "metadata.jsonl", ("\r\n".join(lines) + "\n\n").encode())
    return folder


def kohya(folder: Path) -> Path:
    put(folder / "b" / "1.png", drawn(1))
    put(folder / "b" / "1.txt", "one, ünï\r\nand more\r\n".encode())
    put(folder / "2.png", drawn(2))
    put(folder / "2.caption", b" two\n")
    return folder


def table(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": drawn(k), "path": f"{k}.ppm"} for k in range(5)]
    columns = {"image": cells, "label": [2, 0, 1, 1, 0], "text": [f"text {k}" for k in range(5)]}
    pq.write_table(pa.table(columns), path)
    return path


MAKERS = {
    "animals": animals,
    "style": style,
    "table": lambda p: table(p / "train-00000-of-00001.parquet"),
}


def made(form: str, place: Path) -> str:
    return str(MAKERS[form](place / form)) if form in MAKERS else form


@pytest.mark.parametrize(
    ("form", "split", "fingerprint", "pixels"),
    [
        ("animals", "all", "e5be2d147a9a566e", "2f6165af8e5f0b9b"),
        ("animals", "train", "2ab1918f25e9de26", "2edad32eafd92967"),
        ("animals", "val", "36f23285b4cd2056", "b0eefa60a923045b"),
        ("style", "all", "5e5f233941905f76", "9dda07e031996011"),
        ("style", "train", "5e5f233941905f76", "9dda07e031996011"),
        ("table", "train", "bc0eef4971299f83", "234268b3a2ac9ece"),
        ("digits", "train", "70a73a32d3c0d27e", "d228536e6537227f"),
        ("digits", "test", "42f0a3b337f563dc", "8fd8a393fb6abc31"),
        ("emoji", "test", "cb6313e236e1ffdb", "7e13496ad18891c6"),
    ],
)
def test_images_captions_and_order_are_those_of_before(
    tmp_path: Path, form: str, split: str, fingerprint: str, pixels: str
) -> None:
    found = load_images(made(form, tmp_path), split, 8)
    assert found.fingerprint[:16] == fingerprint
    assert hashlib.sha256(found.images.tobytes()).hexdigest()[:16] == pixels


@pytest.mark.parametrize(
    ("form", "content"),
    [
        ("animals", "296a3897e74329b1"),
        ("style", "9b5c8c2efdca981b"),
        ("digits", "digits"),
        ("emoji", "fb57ba4eb310c1dd"),
        ("smileys", "981b043af9123548"),
    ],
)
def test_raw_content_is_named_as_before(tmp_path: Path, form: str, content: str) -> None:
    assert open_source(made(form, tmp_path)).content()[:16] == content


def test_a_tables_content_is_the_digest_of_its_file(tmp_path: Path) -> None:
    path = table(tmp_path / "train.parquet")
    assert open_source(str(path)).content() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_lora_is_trained_on_the_files_of_before(tmp_path: Path) -> None:
    def seen(items: list[Captioned]) -> str:
        return digest(
            [[item.name, hashlib.sha256(item.data).hexdigest(), item.caption] for item in items]
        )[:16]

    many = tmp_path / "many" / "data"
    for name in ("train", "test"):
        table(many / f"{name}-00000-of-00001.parquet")
    assert seen(read_captioned(style(tmp_path / "style"))) == "55ce9c76abb60373"
    assert seen(read_captioned(kohya(tmp_path / "kohya"))) == "b4f90812c6511112"
    assert seen(read_captioned(many / "train-00000-of-00001.parquet")) == "9da4914698eea2b0"
    assert seen(read_captioned(many.parent)) == "d17190e509d8f15d"
    assert seen(read_photos(tmp_path / "kohya", "a sks cat")) == "032686c8a178cda0"
