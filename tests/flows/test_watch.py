"""The watch scores each new checkpoint once, in this process where there is no worker."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ddim_core.text2image.embedded import embedded_base
from flows.cli.app import app

pytestmark = pytest.mark.timeout(180)
GRID: dict[str, Any] = {"steps": [2], "etas": [0.0], "sigma_hat": False, "n_images": 10,
                        "features": "pixels", "seed": 801}  # fmt: skip
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def look(folder: Path, **asked: Any) -> dict[str, tuple[str, str]]:
    """One look at a folder: outcome and remark of each name."""
    return {Path(one.address).name: (one.outcome, one.remark) for one in looked(folder, **asked)}


def looked(folder: Path, **asked: Any) -> list[Any]:
    """One look at a folder, as the flow returns it."""
    from flows.checkpoint_watch import checkpoint_watch

    given = {"grid": GRID, "settle_seconds": 0.1, "here": True, **asked}
    seen: list[Any] = checkpoint_watch(sources=[str(folder)], **given)
    return seen


def test_each_content_is_scored_once_and_what_is_not_whole_is_left(
    server: str, toy: str, tmp_path: Path
) -> None:
    shutil.copytree(toy, tmp_path / "a")
    half = Path(shutil.copytree(toy, tmp_path / "half"))
    (half / WEIGHTS).write_bytes((half / WEIGHTS).read_bytes()[:5000])
    first = look(tmp_path)
    assert first["a"] == ("started", "a is scored")
    assert first["half"][0] == "left"
    assert "is damaged" in first["half"][1]

    shutil.copytree(toy, tmp_path / "copy")
    shutil.copy(Path(toy) / WEIGHTS, half / WEIGHTS)  # the writer has finished
    for path in tmp_path.rglob("*"):
        path.touch()
    again = look(tmp_path)
    assert {name: outcome for name, (outcome, _) in again.items()} == {
        "a": "scored", "copy": "scored", "half": "scored",
    }  # fmt: skip


def test_a_new_checkpoint_is_tuned_where_that_is_asked_for_and_told_of_the_lists_before_it(
    server: str, toy: str, noisy: str, tmp_path: Path
) -> None:
    from tasks.storage.cell_rows import read_rows

    tune = {"calls": [3], "tuning_images": 16, "budget": 30, "long_steps": 8, "n_images": 10,
            "stock_steps": [4], "seed": 803}  # fmt: skip
    asked = {"grid": {**GRID, "seed": 802}, "tune": tune}
    shutil.copytree(toy, tmp_path / "first")
    seen = looked(tmp_path, **asked)
    assert [(one.flow, one.outcome) for one in seen] == [
        ("fid-grid", "started"), ("tune", "started"),
    ]  # fmt: skip
    assert [one.outcome for one in looked(tmp_path, **asked)] == ["scored", "scored"]

    shutil.copytree(noisy, tmp_path / "second")
    news = [one for one in looked(tmp_path, **asked) if one.address.endswith("second")]
    assert news[1].flow == "tune"
    mine = [row.sampler for row in read_rows().rows if (row.seed, row.checkpoint) == (803, "first")]
    found = [sampler for sampler in mine if "[" in sampler]  # other tests found others of the toy
    assert found
    assert all(f"{sampler}, found elsewhere" in news[1].remark for sampler in found)


def test_a_grid_that_fails_is_named_and_given_up_after_its_attempts(
    server: str, toy: str, tmp_path: Path
) -> None:
    from flows.checkpoint_watch import WatchError

    shutil.copytree(toy, tmp_path / "a")
    guided = {**GRID, "guidance": [2.0]}  # which needs a checkpoint that knows classes
    with pytest.raises(WatchError, match=r"a: .*guidance"):
        look(tmp_path, grid=guided, attempts=1)
    assert look(tmp_path, grid=guided, attempts=1)["a"][0] == "given up"
    shutil.rmtree(tmp_path / "a")
    shutil.copytree(embedded_base(), tmp_path / "base")
    for _ in range(2):  # what its files tell takes no attempt
        with pytest.raises(WatchError, match=r"base: resolution is 20, .* multiples of 8 pixels"):
            look(tmp_path, grid={**GRID, "resolution": 20}, attempts=1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["-p", "stepz=[2]"], "fid-grid takes no stepz; it takes configuration, guide, weights"),
        (["-p", "steps"], "is not NAME=VALUE"),
        (["--tune", "stepz=[2]"], "tune takes no stepz; it takes configuration, weights"),
        (["--attempts", "0"], "attempts is 0"),
        (["--settle", "-1"], "settle_seconds is -1"),
    ],
)
def test_a_watch_that_cannot_be_is_refused(
    server: str, tmp_path: Path, words: list[str], wanted: str
) -> None:
    refused = CliRunner().invoke(app, ["watch", str(tmp_path), "--once", "--here", *words])
    assert refused.exit_code == 2
    assert wanted in refused.stderr


def test_a_source_that_does_not_answer_fails_the_look_and_is_named(
    server: str, tmp_path: Path
) -> None:
    failed = CliRunner().invoke(app, ["watch", "hub:a/b", str(tmp_path), "--once", "--here"])
    assert failed.exit_code == 1
    assert "the hub does not give 'a/b'" in failed.stderr


def test_announcing_needs_a_server_and_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = CliRunner().invoke(app, ["announce", str(tmp_path / "nothing")])
    assert nothing.exit_code == 2
    assert "there is no checkpoint" in nothing.stderr
    monkeypatch.delenv("PREFECT_API_URL")
    alone = CliRunner().invoke(app, ["announce", str(tmp_path)])
    assert alone.exit_code == 2
    assert "PREFECT_API_URL is not set and no `make serve`" in alone.stderr
