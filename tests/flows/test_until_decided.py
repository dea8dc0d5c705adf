"""Races of cells, and comparisons of their rows, as a user meets them."""

from __future__ import annotations

import json
from collections.abc import Callable

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
    unscored = ddim("table", "--compare", "--decide-by", "clip_score")
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
