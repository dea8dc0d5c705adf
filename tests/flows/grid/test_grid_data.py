"""A grid on a user's own images: a class-folder tree, a broken file, and a name that bites."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from tests.flows.grids import GridRun
from tests.picture_files import afhq, captioned, cifar, encoded, picture

pytestmark = pytest.mark.timeout(240)
PLANTED = "<img src=x onerror=alert(1)> a|b $x"


def test_a_toy_of_own_images_is_trained_and_scored(
    run_grid: Callable[..., GridRun], tmp_path: Path
) -> None:
    from flows.fid_grid import fid_grid

    folder = afhq(tmp_path / PLANTED)
    (folder / "train" / "cat" / "waste.png").write_bytes(b"waste")
    asked: dict[str, Any] = {
        "checkpoint": "",
        "dataset": str(folder),
        "resolution": 8,
        "train_steps": 2,
    }
    with pytest.raises(ValueError, match=r"train/cat/waste\.png cannot be read as an image"):
        fid_grid(**asked, features="pixels", n_images=4)
    run = run_grid(**asked, max_broken=1)
    (first, second) = run.rows
    for row in (first, second):
        assert row["checkpoint"] == f"toy-{PLANTED}"
        assert (row["dataset"], row["split"]) == (PLANTED, "train")
        assert (row["resolution"], row["n_reference"], row["resize"]) == (8, 6, "pillow-bicubic")
    page = Path(run.result.report).read_text()
    assert "<img src=x" not in page
    assert "broken (1): train/cat/waste.png" in page


def test_a_resolution_that_is_not_the_checkpoints_is_refused(
    run_grid: Callable[..., GridRun], toy: str
) -> None:
    from flows.fid_grid import fid_grid

    with pytest.raises(ValueError, match=r"resolution is 16, and the checkpoint makes .* 8 pixels"):
        fid_grid(checkpoint=toy, resolution=16, features="pixels", n_images=4)


def ddim(*words: str) -> str:
    done = CliRunner().invoke(app, ["data", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_data_command_shows_counts_classes_licence_and_broken_images(tmp_path: Path) -> None:
    folder = afhq(tmp_path / "animals", each=3)
    (folder / "val" / "dog" / "waste.png").write_bytes(b"waste")
    text = ddim(str(folder))
    lines = [line.split() for line in text.splitlines()]
    assert ["dog", "3", "3"] in lines
    assert any(line[:4] == ["val", "9", "1", "24x24"] for line in lines)
    assert "broken in val: val/dog/waste.png cannot be read as an image" in text
    told = json.loads(ddim(str(folder), "--json"))
    assert [split["n"] for split in told["splits"]] == [9, 9]
    assert "CC-BY 4.0" in ddim("digits")
    assert "no classes" in ddim(str(captioned(tmp_path / "style")))


def test_data_command_exports_what_datasets_opens(tmp_path: Path) -> None:
    import datasets

    path = cifar(tmp_path / "test.parquet")
    ddim(str(path), "--resolution", "16", "--export", str(tmp_path / "out"))
    opened = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "out" / "data" / "*.parquet"), split="train",
        cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    assert len(opened) == 12
    assert opened[0]["image"].size == (16, 16)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("imagenet", "there is no data set 'imagenet'"),
        ("digits --png", "--resolution and --png are of --export"),
        ("digits --max-broken -1", "max_broken is -1; it must be at least 0"),
        ("emoji --export {out} --background bluish", "background is 'bluish'"),
        ("{waste} --export {out}", "waste.png cannot be read as an image"),
    ],
)
def test_data_command_refuses_in_one_sentence(tmp_path: Path, words: str, wanted: str) -> None:
    (tmp_path / "waste").mkdir()
    (tmp_path / "waste" / "waste.png").write_bytes(b"waste")
    (tmp_path / "waste" / "good.png").write_bytes(encoded(picture(0)))
    places = {"out": tmp_path / "out", "waste": tmp_path / "waste"}
    refused = CliRunner().invoke(app, ["data", *words.format(**places).split()])
    assert refused.exit_code == 2
    assert len(refused.stderr.splitlines()) == 1
    assert wanted in refused.stderr
    assert not any((tmp_path / "out").rglob("*.p*"))


def test_a_reader_that_has_seen_enough_gets_no_error() -> None:
    command = f"{sys.executable} -m flows.cli.app data digits | head -1"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=Path(__file__).parents[3],
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("digits: licence")
    assert done.stderr in ("", "ddim data: reading what is asked for\n")  # it is slow
