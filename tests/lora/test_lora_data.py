"""Captioned images in every form, and what is said when they are not right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddim_core.lora.data import decode, locate_data, read_captioned, read_photos, write_captioned
from tests.lora.material import noise_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_captioned(noise_pictures(3), tmp_path / "data")
    return tmp_path / "data"


def test_a_written_folder_reads_back_as_it_was(folder: Path) -> None:
    assert read_captioned(folder) == noise_pictures(3)


def test_a_folder_train_with_metadata_is_found_as_by_hugging_faces_loader(folder: Path) -> None:
    outer = folder.parent / "outer"
    outer.mkdir()
    folder.rename(outer / "train")
    assert read_captioned(outer) == noise_pictures(3)


def test_kohyas_text_files_are_captions(tmp_path: Path) -> None:
    for item in noise_pictures(2):
        (tmp_path / item.name).write_bytes(item.data)
        (tmp_path / item.name).with_suffix(".txt").write_text("a red dog\n")
    assert [item.caption for item in read_captioned(tmp_path)] == ["a red dog"] * 2


def test_a_parquet_file_of_the_hub_is_read(tmp_path: Path) -> None:
    cells = [{"bytes": item.data, "path": item.name} for item in noise_pictures(2)]
    table = pa.table({"image": cells, "text": ["one", "two"]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert [item.caption for item in read_captioned(tmp_path / "train.parquet")] == ["one", "two"]
    assert [item.caption for item in read_captioned(tmp_path)] == ["one", "two"]


def test_a_caption_without_its_image_is_named(folder: Path) -> None:
    (folder / "1.png").unlink()
    with pytest.raises(ValueError, match=r"line 2 of metadata.jsonl names '1\.png', which is not"):
        read_captioned(folder)


def test_an_image_without_its_caption_is_named(folder: Path) -> None:
    (folder / "stray.png").write_bytes((folder / "0.png").read_bytes())
    with pytest.raises(ValueError, match=r"1 of 4 images have no caption.*stray\.png"):
        read_captioned(folder)


def test_an_image_with_two_captions_is_named(folder: Path) -> None:
    with (folder / "metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": "2.png", "text": "again"}) + "\n")
    with pytest.raises(ValueError, match=r"line 4 of metadata.jsonl names 2\.png a second time"):
        read_captioned(folder)


@pytest.mark.parametrize("line", ["{not json", '{"text": "no name"}', '{"file_name": 3}'])
def test_a_bad_line_of_metadata_is_named_by_its_number(folder: Path, line: str) -> None:
    (folder / "metadata.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=r"line 1 of metadata\.jsonl"):
        read_captioned(folder)


def test_an_unreadable_image_is_named(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2\.png cannot be read as an image"):
        read_captioned(folder)


def test_a_truncated_image_is_named(folder: Path) -> None:
    content = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"2\.png cannot be read as an image"):
        read_captioned(folder)


def test_empty_and_missing_places_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image"):
        read_captioned(tmp_path)
    with pytest.raises(ValueError, match="holds no image"):
        read_photos(tmp_path, "a photo of sks cat")
    with pytest.raises(ValueError, match="there is no data '/nowhere/at/all'"):
        locate_data("/nowhere/at/all")


def test_images_without_any_caption_are_named(tmp_path: Path) -> None:
    for item in noise_pictures(2):
        (tmp_path / item.name).write_bytes(item.data)
    with pytest.raises(ValueError, match=r"0\.png, 1\.png has no \.txt file"):
        read_captioned(tmp_path)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), dtype=np.uint8)
    pixels[0, 0] = [10, 20, 30, 255]
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    seen = np.asarray(decode((tmp_path / "clear.png").read_bytes(), "clear.png"))
    assert seen[0, 0].tolist() == [10, 20, 30]
    assert seen[1, 1].tolist() == [255, 255, 255]
