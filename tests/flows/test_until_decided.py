"""Races of cells, of one checkpoint or several, and comparisons of rows, as a user meets them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.storage.cell_rows import read_rows
from tests.flows.grids import GridRun

pytestmark = pytest.mark.timeout(240)


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--until-decided --confidence 1.5", "confidence is 1.5"),
        ("--until-decided --budget 0", "budget is 0"),
        ("--until-decided --budget 1000", "takes at least 2560"),
        ("--until-decided --goal worst", "goal is 'worst'"),
        ("--until-decided --steps 0", "steps is 0"),
        ("--confidence 0.9 --budget 10", "--confidence, --budget needs --until-decided"),
        ("--checkpoint a/b --checkpoint a/c --budget 9", "budget is 9 and until_decided is off"),
        ("--checkpoint a/b --checkpoint a/c --gate", "--gate is of a grid of one checkpoint"),
        ("--checkpoint a/b --checkpoint a/c --n-images 3", "n_images is 3; it must be at least 4"),
        ("--checkpoint nowhere/step-*", "'nowhere/step-*' holds no checkpoint"),
    ],
)
def test_a_race_that_cannot_be_is_refused_in_one_sentence(words: str, wanted: str) -> None:
    refused = ddim("grid", *words.split())
    assert refused.exit_code == 2, refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert wanted in refused.stderr


def test_a_race_stops_cells_and_draws_nothing_twice(
    server: str, toy: str, run_grid: Callable[..., GridRun]
) -> None:
    from flows.until_decided import until_decided

    asked = {
        "checkpoint": toy, "steps": [2, 4], "etas": [0.0, 1.0], "sigma_hat": False, "seed": 77,
        "n_images": 320, "shard_size": 64, "features": "pixels", "budget": 1100,
    }  # fmt: skip
    first = until_decided(**asked)
    rows = read_rows(first.cells).whole().frame
    assert first.images == rows["n_images"].sum() == first.images_drawn <= 1100
    assert rows["n_images"].min() == 128
    assert len(rows) == 4
    assert rows["kid_se"].gt(0.0).all()
    assert "of the full grid" in " ".join(first.reading)
    again = until_decided(**asked)
    assert again.images_drawn == 0
    assert again.reading == first.reading
    # The full grid takes up where the race left off.
    whole = run_grid(
        steps=[2, 4], etas=[0.0, 1.0], seed=77, n_images=320, shard_size=64, features="pixels"
    )
    assert whole.result.images_drawn == 4 * 320 - first.images

    compared = json.loads(ddim("table", "--compare", "--json").stdout)
    ours = next(c for c in compared if c["best"] in whole.result.cells)
    assert {c["a"] for c in ours["comparisons"]} | {ours["best"]} == set(whole.result.cells)
    assert len(whole.result.advice) == 2
    assert whole.result.advice[0].startswith("The lowest FID is ")
    by_inf = json.loads(ddim("table", "--compare", "--json", "--decide-by", "fid_inf").stdout)
    assert {c["decide_by"] for c in by_inf} == {"fid_inf"}
    cells = [word for digest in whole.result.cells for word in ("--cell", digest[:20])]
    unscored = ddim("table", "--compare", "--decide-by", "clip_score", *cells)
    assert unscored.exit_code == 2
    assert "clip_score decides, and S = " in unscored.stderr
    assert "score the grid again with clip_score" in unscored.stderr
    text = ddim("table", "--compare").stdout
    assert "Not compared with the first rows, which differ in" in text
    small = rows.loc[rows["n_images"] == 128, "cell_digest"].iloc[0]
    refused = ddim("table", "--compare", "--cell", small[:20], "--cell", ours["best"][:20])
    assert refused.exit_code == 2
    assert "n_images is 128 and 320" in refused.stderr or "320 and 128" in refused.stderr
    assert ddim("table", "--cell", "zzz").exit_code == 2


def test_snapshots_of_a_folder_are_ranked_and_a_grid_of_one_of_them_draws_nothing(
    server: str, toy: str, noisy: str, tmp_path: Path, run_grid: Callable[..., GridRun]
) -> None:
    """A folder of two checkpoints, one again, and what is none."""
    from flows.snapshots import snapshots

    for name, source in (("good", toy), ("worse", noisy), ("latest", toy)):
        shutil.copytree(source, tmp_path / name)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "loss.txt").write_text("1")
    words = "--steps 2,4 --etas 0 --seed 78 --n-images 96 --features pixels --shard-size 48"
    asked = ddim("grid", "--checkpoint", str(tmp_path), *words.split(), "--json")
    assert asked.exit_code == 0, asked.stderr
    told = json.loads(asked.stdout)
    ranking = told["ranking"]
    assert [one["name"] for one in ranking["snapshots"]] == ["good", "worse"]
    assert (ranking["best"], told["decided"], told["images"]) == (0, True, 4 * 96)
    assert ranking["snapshots"][1]["behind"]["low"] > 0.0
    assert {one["call"] for one in ranking["settings"]} == {"right"}
    assert {row["cell_digest"] for row in told["rows"]} == set(ranking["cells"])
    left_out = " ".join(told["left_out"])
    assert "latest is good by content" in left_out
    assert "logs is left out: logs holds no checkpoint" in left_out
    page = Path(told["report"]).read_text()
    assert "2 snapshots, each at its own best setting" in page
    assert all(sentence in unescape(page) for sentence in told["reading"])
    settings = {"steps": [2, 4], "etas": [0.0], "n_images": 96, "features": "pixels", "seed": 78}
    alone = run_grid(checkpoint=str(tmp_path / "worse"), shard_size=48, **settings)
    assert alone.result.images_drawn == 0
    assert set(alone.result.cells) < set(ranking["cells"])

    race = {**settings, "n_images": 320, "seed": 79, "shard_size": 64, "sigma_hat": False}
    raced = snapshots(checkpoints=[noisy, toy], **race)
    assert raced.images == raced.images_drawn <= raced.images_full / 2
    assert raced.ranking.snapshots[raced.ranking.best].name == Path(toy).name
    again = snapshots(checkpoints=[noisy, toy], **race)
    assert (again.images_drawn, again.ranking) == (0, raced.ranking)
