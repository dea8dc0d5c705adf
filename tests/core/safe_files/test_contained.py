"""A place is what its name says: nothing that a file names is read or written anywhere else."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddim_core.images.load import load_images, open_source
from ddim_core.safe_files.contained import contained, require_plain_name, require_plain_path
from ddim_core.safe_files.shards import shards_in

OUTSIDE = (
    "../other", "a/../../other", "/tmp/other", "~/other", "..", "a/..", "a\0b", "..\\other", "a\\b",
    "C:\\other", "C:/other", "http://127.0.0.1:9/x", "https:x", "file:///etc/passwd", "file:/etc",
    "zip://a::http://127.0.0.1:9/x", "data:text/plain,a", "", "x" * 300,
)  # fmt: skip


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every address that anything tries to reach; trying fails."""
    asked: list[object] = []

    def refuse(*address: object, **_: object) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    return asked


@pytest.mark.parametrize("name", OUTSIDE)
def test_only_plain_paths_are_taken_and_others_are_named(name: str, tmp_path: Path) -> None:
    for refuse in (require_plain_path, require_plain_name):
        with pytest.raises(ValueError, match="the figure"):
            refuse(name, "the figure")
    with pytest.raises(ValueError, match="the figure"):
        contained(tmp_path, name, "the figure")


def test_plain_names_and_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("a", "a b.png", "12:30.png", "ümlaut", "a..b", "...", "-x", "#?%20"):
        assert require_plain_name(name, "it") == name
        assert contained(tmp_path, f"x/{name}", "it") == tmp_path / "x" / name
    for name in ("a/b", ".", "a\nb", 3, None):
        with pytest.raises(ValueError, match="it "):
            require_plain_name(name, "it")


def test_a_link_that_leads_out_or_round_is_not_contained(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "other").write_text("x")
    (folder / "out").symlink_to(tmp_path / "other")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "real").write_text("x")
    (folder / "in").symlink_to("real")
    assert contained(folder, "in", "it").read_text() == "x"
    for name in ("out", "up/other", "loop", "loop/x"):
        with pytest.raises(ValueError, match="leads"):
            contained(folder, name, "it")


def saved(place: Path) -> Path:
    """A data set of two splits, as `save_to_disk` writes it."""
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    one = datasets.Dataset.from_dict(
        {"image": list(pixels)}, features=datasets.Features({"image": datasets.Image()})
    )
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(place))
    return place


def edit(path: Path, change: Callable[[Any], object]) -> None:
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))


def test_a_saved_data_set_reads_nothing_outside_of_it(tmp_path: Path) -> None:
    good, other = saved(tmp_path / "good"), saved(tmp_path / "other")
    assert len(load_images(str(good), "train", None).images) == 3
    arrow = next((other / "train").glob("*.arrow"))
    (good / "train" / "hidden").mkdir()
    (good / "train" / ".hidden.arrow").write_bytes(arrow.read_bytes())
    (good / "train" / "link.arrow").symlink_to(arrow)
    splits, state = good / "dataset_dict.json", good / "train" / "state.json"
    whole = splits.read_text(), state.read_text()
    for name in (*OUTSIDE, "train/../../other/train", str(other / "train"), ".hidden"):
        edit(splits, lambda told, name=name: told.update(splits=[name, "test"]))
        with pytest.raises(ValueError, match=r"dataset_dict\.json|plain|no name"):
            open_source(str(good))
    splits.write_text(whole[0])
    for name in (*OUTSIDE, f"../../other/train/{arrow.name}", str(arrow), ".hidden.arrow",
                 "link.arrow"):  # fmt: skip
        edit(state, lambda told, name=name: told.update(_data_files=[{"filename": name}]))
        with pytest.raises(ValueError, match=r"state\.json"):
            open_source(str(good))
    state.write_text(whole[1])
    assert len(load_images(str(good), "train", None).images) == 3


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
IMAGES = "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n---\n"
CARDS = [
    "configs:\n- config_name: default\n  data_files: {place}",
    "configs:\n- config_name: default\n  data_files: [{place}]",
    "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {place}",
    "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: [a, {place}]",
    "configs:\n- config_name: default\n  data_files:\n    train: {place}",
    "configs:\n- config_name: default\n  data_dir: {place}",
    "configs:\n- config_name: a\n  data_files: a.parquet\n- config_name: b\n  data_files: {place}",
]


@pytest.mark.parametrize("card", CARDS, ids=range(len(CARDS)))
@pytest.mark.parametrize(
    "head", ["---\n", "\n\n---\n", "---\r\n"], ids=["plain", "late", "windows"]
)
def test_a_card_that_names_an_address_or_another_folder_makes_no_request(
    tmp_path: Path, no_network: list[object], card: str, head: str
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    one = datasets.Dataset.from_dict(
        {"image": list(pixels)}, features=datasets.Features({"image": datasets.Image()})
    )
    one.to_parquet(folder / "a.parquet")
    one.to_parquet(tmp_path / "other.parquet")
    for place in ("http://127.0.0.1:9/a.parquet", "hf://datasets/a/b/c.parquet", "../other.parquet",
                  str(tmp_path / "other.parquet"), "zip://a::http://127.0.0.1:9/b", ".a/b.parquet",
                  "s3://a/b.parquet"):  # fmt: skip
        text = card.format(place=f'"{place}"').replace("\n", "\r\n" if "\r" in head else "\n")
        (folder / "README.md").write_text(f"{head}{text}\n---\n# A set\n", newline="")
        with pytest.raises(ValueError, match=r"README\.md"):
            open_source(str(folder))
    assert no_network == []


def test_a_card_that_no_fingerprint_sees_is_refused_and_a_good_one_is_heeded(
    tmp_path: Path, no_network: list[object]
) -> None:
    pixels = np.zeros((2, 8, 8, 3), np.uint8)
    one = datasets.Dataset.from_dict(
        {"image": list(pixels)}, features=datasets.Features({"image": datasets.Image()})
    )
    (tmp_path / "data").mkdir()
    one.to_parquet(tmp_path / "data" / "a.parquet")
    good = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: mine\n    path: data/*\n"
    )
    (tmp_path / "README.md").write_text(f"{good}---\n")
    assert open_source(str(tmp_path)).splits == ("mine",)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "data", copy / "data")
    (copy / ".huggingface.yaml").write_text("configs: []\n")
    with pytest.raises(ValueError, match="no fingerprint"):
        open_source(str(copy))
    assert no_network == []


def test_a_table_reads_no_image_file_that_is_hidden_or_elsewhere(
    tmp_path: Path, no_network: list[object]
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for place in ("http://127.0.0.1:9/a.png", "../x.png", str(tmp_path / "x.png"),
                  str(folder / ".x.png"), "file:///etc/passwd"):  # fmt: skip
        cell = pa.array([{"bytes": None, "path": place}], IMAGE)
        pq.write_table(pa.table({"image": cell}), folder / "a.parquet")
        (folder / ".x.png").write_bytes(b"x")
        with pytest.raises(ValueError, match=r"hidden file, or one outside"):
            load_images(str(folder), "all", None)
        for said in (None, IMAGES):
            other = tmp_path / f"texts-{said is None}"
            shutil.rmtree(other, ignore_errors=True)
            other.mkdir()
            texts = pa.table({"image": [place]})
            if said is None:
                schema = datasets.Features({"image": datasets.Image()}).arrow_schema
                texts = texts.replace_schema_metadata(schema.metadata)
            else:
                (other / "README.md").write_text(said)
            pq.write_table(texts, other / "a.parquet")
            with pytest.raises(ValueError, match=r"it must hold their bytes|image columns"):
                load_images(str(other), "all", None)
    assert no_network == []


def test_a_folder_that_is_read_as_no_table_is_refused(
    tmp_path: Path, no_network: list[object]
) -> None:
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "a.parquet")
    for i in range(3):
        line = json.dumps({"image": "http://127.0.0.1:9/a.png"})
        (tmp_path / f"{i}.jsonl").write_text(f"{line}\n")
    (tmp_path / "README.md").write_text(IMAGES)
    with pytest.raises(ValueError, match="more json files than tables"):
        open_source(str(tmp_path))
    assert no_network == []


def test_an_index_of_shards_names_files_beside_it_alone(tmp_path: Path) -> None:
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.parent.mkdir()
    (tmp_path / "other").write_bytes(b"")
    for name in (*OUTSIDE, str(tmp_path / "other"), "."):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match=r"index\.json"):
            shards_in(index)
