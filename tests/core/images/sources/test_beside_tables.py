"""What lies beside tables: circles of links, pipes, packed files and cards, told in words by the
grid's reader and LoRA's alike."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddim_core.images.load import open_source
from ddim_core.lora.data import captioned_sources, content_of, notes_on
from tests.picture_files import encoded, picture


def table(folder: Path, name: str = "train.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = {"image": [{"bytes": encoded(picture(k)), "path": None} for k in range(2)],
            "text": ["a", "b"]}  # fmt: skip
    pq.write_table(pa.table(rows), folder / name)
    return folder


def refused(folder: Path, wanted: str) -> None:
    for read in (lambda: open_source(str(folder)), lambda: captioned_sources(folder)):
        with pytest.raises(ValueError, match=wanted):
            read()


@pytest.mark.parametrize(
    "name", ["y.jsonl", "README.md", "dataset_info.json", "x.parquet", "y.txt", "deep/y.bin"]
)
@pytest.mark.parametrize("kind", ["circle", "pipe"])
def test_a_circle_or_a_pipe_beside_a_table_is_named(name: str, kind: str, tmp_path: Path) -> None:
    folder = table(tmp_path / "set")
    place = folder / name
    place.parent.mkdir(exist_ok=True)
    if kind == "circle":
        place.symlink_to(place.name)
    else:
        os.mkfifo(place)
    refused(folder, rf"{place.name}\W.*(symbolic links|a pipe)")


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_a_table_that_is_a_circle_or_a_pipe_itself_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(name)
    for read in (open_source, lambda place: captioned_sources(Path(place))):
        with pytest.raises(ValueError, match=rf"{name}"):
            read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("x.jsonl.gz", r"it holds 'x.jsonl.gz'; unpack it first"),
        ("images.zip", r"it holds 'images.zip'; unpack it first"),
        (".huggingface.yaml", r"it holds .huggingface.yaml, which no fingerprint sees"),
    ],
)
def test_what_the_grid_refuses_beside_a_table_lora_refuses_too(
    name: str, wanted: str, tmp_path: Path
) -> None:
    folder = table(tmp_path / "set")
    (folder / name).write_bytes(b"x")
    refused(folder, wanted)


def test_what_the_grid_leaves_out_beside_a_table_lora_tells_of_too(tmp_path: Path) -> None:
    folder = table(tmp_path / "set")
    (folder / "x.csv").write_text("a\n")
    (folder / "x.txt").write_text("a\n")
    for notes in (open_source(str(folder)).notes, notes_on(captioned_sources(folder))):
        assert any("left out because no tables (2): x.csv, x.txt" in n for n in notes)
    before = content_of(captioned_sources(folder))
    (folder / "x.txt").write_text("b\n")
    assert content_of(captioned_sources(folder)) == before
    (folder / "x.png").write_bytes(encoded(picture(3)))
    assert any("(3): x.csv, x.png, x.txt" in n for n in notes_on(captioned_sources(folder)))
