"""Text of other people: byte order marks, encodings, line ends, and tables of metadata."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddim_core.images.load import load_images, open_source
from ddim_core.images.sources.captions import listed_captions
from ddim_core.lora.data import read_captioned
from ddim_core.text2image.prompts import read_prompts
from tests.picture_files import encoded, picture

BOM = "\ufeff"
ODD = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"  # where str.splitlines would split


def folder_of(place: Path, names: list[str]) -> Path:
    for k, name in enumerate(names):
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(k)))
    return place


def jsonl(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def both(folder: Path) -> tuple[str, ...]:
    """The captions of a folder by the grid's reader, which are those of LoRA's."""
    grid = load_images(str(folder), "all", 8).captions
    assert grid == tuple(item.caption for item in read_captioned(folder))
    assert grid is not None
    return grid


def refused(folder: Path, wanted: str) -> None:
    for read in (lambda: load_images(str(folder), "all", 8), lambda: read_captioned(folder)):
        with pytest.raises(ValueError, match=wanted):
            read()


@pytest.mark.parametrize("form", ["jsonl", "csv", "txt"])
def test_a_byte_order_mark_is_no_part_of_a_caption_and_odd_characters_are(
    tmp_path: Path, form: str
) -> None:
    for mark in ("", BOM):
        folder = folder_of(tmp_path / f"set{len(mark)}", ["1.png"])
        text = {
            "jsonl": jsonl({"file_name": "1.png", "text": ODD}),
            "csv": f'file_name,text\r\n1.png,"{ODD}"\r\n',
            "txt": f"{ODD}\n",
        }[form]
        name = "1.txt" if form == "txt" else f"metadata.{form}"
        (folder / name).write_bytes((mark + text).encode())
        assert both(folder) == (ODD,)
    one, other = (load_images(str(tmp_path / f"set{k}"), "all", 8) for k in (0, 1))
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize("suffix", ["txt", "jsonl"])
def test_prompts_are_split_at_newlines_alone_and_have_no_byte_order_mark(
    tmp_path: Path, suffix: str
) -> None:
    lines = [ODD, "second"]
    if suffix == "jsonl":
        lines = [json.dumps({"text": line}, ensure_ascii=False) for line in lines]
    file = tmp_path / f"prompts.{suffix}"
    for end in ("\n", "\r\n"):
        file.write_bytes((BOM + end.join(lines) + end + BOM + lines[1] + end + end).encode())
        assert read_prompts(str(file)) == [ODD, "second", "second"]
    file.write_bytes(b"one\rtwo\r")
    with pytest.raises(ValueError, match=r"carriage return alone|is not JSON"):
        read_prompts(str(file))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "1.txt", "prompts.txt"])
def test_text_of_other_encodings_is_refused_by_its_files_name(
    tmp_path: Path, encoding: str, name: str
) -> None:
    folder = folder_of(tmp_path / "set", ["1.png"])
    text = {"metadata.jsonl": jsonl({"file_name": "1.png", "text": "é"}),
            "metadata.csv": "file_name,text\n1.png,é\n"}.get(name, "café\n")  # fmt: skip
    (folder / name).write_bytes(text.encode(encoding))
    wanted = rf"{name} is no UTF-8 text.*save it as UTF-8".replace(".", r"\.", 1)
    if name == "prompts.txt":
        with pytest.raises(ValueError, match=wanted):
            read_prompts(str(folder / name))
    else:
        refused(folder, wanted)


def test_the_first_caption_that_is_not_null_counts_and_a_name_stands_once(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["1.png", "2.png"])
    listing = folder / "metadata.jsonl"
    rows: list[dict[str, object]] = [
        {"file_name": "1.png", "text": None, "caption": "A"},
        {"file_name": "./2.png", "prompt": "B", "text": ""},
    ]
    listing.write_text(jsonl(*rows))
    assert both(folder) == ("A", "")
    listing.write_text(jsonl(*rows, {"file_name": "2.png", "text": "again"}))
    refused(folder, r"line 3 of metadata\.jsonl names 2\.png a second time")
    listing.write_text(jsonl({"file_name": "1.png", "text": 5}))
    refused(folder, "line 1 .* must have texts")
    listing.write_text('{"file_name": "1.png", "text": "\\ud800"}\n')
    refused(folder, "surrogate")
    table = pa.table({
        "image": [{"bytes": encoded(picture(0)), "path": "1.png"}],
        "text": pa.array([None], pa.string()),
        "caption": ["A"],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "train.parquet")
    assert both(tmp_path / "train.parquet") == ("A",)


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("column", ["file_name", "image_file_name"])
def test_metadata_is_read_as_datasets_reads_it_in_nested_folders(
    tmp_path: Path, form: str, column: str
) -> None:
    from datasets import load_dataset

    folder = folder_of(tmp_path / "set", ["top.png", "a/1.png", "a/deep/2.png", "b/1.png"])
    listed = {".": ["top.png"], "a": ["1.png", "deep/2.png"], "b": ["1.png"]}
    for place, names in listed.items():
        rows = [{column: n, "text": f"{place}, of {n}", "more": k} for k, n in enumerate(names)]
        path = folder / place / f"metadata.{form}"
        if form == "csv":
            lines = [f'{row[column]},"{row["text"]}",{row["more"]}\n' for row in rows]
            path.write_text(f"{column},text,more\n" + "".join(lines))
        elif form == "jsonl":
            path.write_text(jsonl(*rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
    theirs = load_dataset(
        "imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache")
    )
    expected = {row["text"]: np.asarray(row["image"]) for row in theirs}
    ours = load_images(str(folder), "all", None)
    assert ours.captions is not None
    found = dict(zip(ours.captions, ours.images, strict=True))
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[text], expected[text]) for text in expected)
    before = open_source(str(folder)).content()
    (folder / "unread.txt").write_text("not read")
    assert open_source(str(folder)).content() == before
    (folder / "b" / f"metadata.{form}").unlink()
    assert open_source(str(folder)).content() != before
    assert both(folder.parent / "set" / "a")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("file_name,text\n1.png,a dog, red\n", "line 2 .* more fields"),
        ("name,text\n1.png,a\n", "line 2 of metadata.csv has no file_name; it has name, text"),
        ('file_name,text\n1.png,"a\n', "is no CSV"),
        ("file_name,text\n../1.png,a\n", "which is not there"),
        ("file_name,text\n/etc/passwd,a\n", "which is not there"),
    ],
)
def test_a_bad_line_of_csv_is_named(tmp_path: Path, text: str, wanted: str) -> None:
    folder = folder_of(tmp_path, ["1.png"])
    (folder / "metadata.csv").write_text(text)
    refused(folder, wanted)


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", ["1.png", "2.jfif", "3.JPE"])
    for name in ("notes.txt", "raw.psd", "half/x.heic", ".hidden.png", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"---\n")
    found = load_images(str(folder))
    assert len(found) == 3
    assert found.notes == (
        "left out because no images (3): half/x.heic, notes.txt, raw.psd",
        "left out because hidden (1): .hidden.png",
    )


@pytest.mark.parametrize("listing", [b"{}\n" * 2_000_001, b"[" + b"[]," * 2**19 + b"[]]"])
def test_a_listing_of_absurd_lines_is_refused(listing: bytes) -> None:
    with pytest.raises(ValueError, match=r"metadata\.jsonl has"):
        listed_captions(PurePosixPath("metadata.jsonl"), listing, [])


EMOJI = "\U0001f600"


def caption_memory(listing: str, text: str, names: list[str]) -> float:
    """The bytes that reading a file of metadata takes at most, as Python counts them."""
    import tracemalloc

    images = [PurePosixPath(name) for name in names]
    data = text.encode()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"at most|is no (JSON|CSV)|too many"):
            listed_captions(PurePosixPath(listing), data, images)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("kind", ["blank", "caption", "whole"])
def test_one_emoji_does_not_make_four_bytes_of_every_character_of_a_file(
    form: str, kind: str
) -> None:
    n, names = 30, [f"{i}.png" for i in range(30)]
    wide = " " * 2**17 + EMOJI
    if form == "jsonl":
        first = json.dumps({"file_name": "0.png", "text": "a"}) + "\n"
        middle = {"blank": f"{wide}\n", "caption": jsonl({"file_name": "1.png", "text": wide}),
                  "whole": f"{wide * 20}\n"}[kind]  # fmt: skip
    else:
        first = "file_name,text\n0.png,a\n"
        middle = {"blank": f'{wide}"x\n', "caption": f'1.png,"{wide[2**16:]}"\n',
                  "whole": f'1.png,"{wide}\n{wide}"\n'}[kind]  # fmt: skip
    assert caption_memory(f"metadata.{form}", first + middle * n, names) < 2**25


def test_captions_that_fill_the_memory_together_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ddim_core.safe_files.texts.MOST_HELD", 2**20)
    names = [f"{i}.png" for i in range(100)]
    rows = [{"file_name": name, "text": f"{EMOJI}{'a' * 4000}{name}"} for name in names]
    with pytest.raises(ValueError, match=r"metadata.jsonl holds over 1048576 bytes of texts"):
        listed_captions(
            PurePosixPath("metadata.jsonl"), jsonl(*rows).encode(), list(map(PurePosixPath, names))
        )


def test_a_byte_order_mark_before_a_caption_is_no_part_of_it_in_any_form(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", ["1.png"])
    cell = [{"bytes": encoded(picture(0)), "path": "1.png"}]
    pq.write_table(pa.table({"image": cell, "text": [f"{BOM}a"]}), tmp_path / "x.parquet")
    assert both(tmp_path / "x.parquet") == ("a",)
    for form, text in (("csv", f'file_name,text\n1.png,"{BOM}a"\n'),
                       ("jsonl", jsonl({"file_name": "1.png", "text": f"{BOM}a"}))):  # fmt: skip
        (folder / f"metadata.{form}").write_text(text)
        assert both(folder) == ("a",)
        (folder / f"metadata.{form}").unlink()
    pq.write_table(pa.table({"file_name": ["1.png"], "text": [f"{BOM}a"]}),
                   folder / "metadata.parquet")  # fmt: skip
    assert both(folder) == ("a",)


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        ("jsonl", '{"file_name": "1.png", "text": "a", "text": "b"}\n', "line 1 .* has text twice"),
        ("jsonl", '{"file_name": "1.png", "file_name": "2.png"}\n', "has file_name twice"),
        ("csv", "file_name,text,text\n1.png,a,b\n", "line 1 of metadata.csv has text twice"),
        ("csv", 'file_name,text\n1.png,a\n2.png,"b\nc\n', "line 3 of metadata.csv is no CSV"),
        ("csv", 'file_name,text\n1.png,a\n2.png,"b"c\n', "line 3 of metadata.csv is no CSV"),
    ],
)
def test_what_stands_twice_or_opens_without_end_is_named_by_its_line(
    form: str, text: str, wanted: str, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path, ["1.png", "2.png"])
    (folder / f"metadata.{form}").write_text(text)
    refused(folder, wanted)


def test_a_column_that_stands_twice_in_a_table_of_metadata_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["1.png"])
    columns = [pa.array(["1.png"]), pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(columns, names=["file_name", "text", "text"])
    pq.write_table(table, folder / "metadata.parquet")
    refused(folder, "it has text twice|has text twice")


@pytest.mark.parametrize(
    ("form", "text", "wanted"),
    [
        ("csv", "file_name, text\n1.png,a\n", "gives no captions: .* has 'file_name', ' text'"),
        ("csv", "", "metadata.csv names no image"),
        ("csv", "file_name,text\n", "metadata.csv names no image"),
        ("csv", "file_name,text\n1.png,\n", "gives no captions: .* has 'file_name', 'text'"),
        ("jsonl", '{"file_name": "1.png", "Text": "a"}\n', "under text, caption, prompt, and it"),
        ("jsonl", "\n", "metadata.jsonl names no image"),
    ],
)
def test_metadata_that_give_no_captions_are_told_of(
    form: str, text: str, wanted: str, tmp_path: Path
) -> None:
    import re

    folder = folder_of(tmp_path, ["1.png"])
    (folder / f"metadata.{form}").write_text(text)
    found = load_images(str(folder), "all", 8)
    assert found.captions is None
    assert [note for note in found.notes if re.search(wanted, note)]


def test_csv_lines_may_end_in_carriage_returns_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ["1.png", "2.png"])
    (folder / "metadata.csv").write_bytes(b'file_name,text\r1.png,"a\rb"\r2.png,c')
    assert both(folder) == ("a\rb", "c")
