"""A grid judges its checkpoint: regressions are found and gated, re-saved weights are identical."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.storage.cell_rows import read_rows
from tasks.storage.places import local_dir
from tests.faults.flips import unsealed
from tests.flows.grids import GridRun

pytestmark = pytest.mark.timeout(240)
SEED = 700  # of this file's cells alone
SMALL: dict[str, Any] = {"n_images": 60, "shard_size": 60, "seed": SEED}
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def verdicts() -> pd.DataFrame:
    return pd.read_parquet(local_dir("results", "verdicts"))


@pytest.fixture(scope="module")
def resaved(toy: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("resaved") / "resaved"
    shutil.copytree(toy, folder)
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata={"saved": "once more"})
    return str(folder)


@pytest.fixture(scope="module")
def gated(run_grid: Callable[..., GridRun], toy: str, noisy: str) -> GridRun:
    """The planted regression against the toy, which no grid has scored before."""
    return run_grid(checkpoint=noisy, against=toy, gate=True, **SMALL)


def test_a_planted_regression_ends_a_gated_grid_failed_with_all_its_rows(gated: GridRun) -> None:
    assert gated.state == "Failed"
    assert "RegressionError: Worse at S = 2" in gated.message
    rows = read_rows().whole().frame
    assert sorted(rows[rows["checkpoint"] == "noisy"]["eta"]) == [0.0, 1.0]
    found = verdicts()
    found = found[found["checkpoint"] == "noisy"]
    assert set(found["verdict"]) == {"worse"}
    assert set(found["against"]) == {"toy"}
    assert sorted(found["eta"]) == [0.0, 1.0]
    assert found["operating_point"].sum() == 1
    page = local_dir("reports", f"verdict-{found['verdict_digest'].iloc[0][:12]}", "index.html")
    text = page.read_text()
    assert "noisy (step 20) against toy (step 20): worse" in text
    assert 'src="http' not in text
    assert "default-src &#39;none&#39;" in text  # it can ask no network


def test_an_ungated_grid_is_judged_against_the_one_scored_before(
    run_grid: Callable[..., GridRun], gated: GridRun, noisy: str
) -> None:
    run = run_grid(checkpoint=noisy, **SMALL)
    assert run.state == "Completed"
    assert run.computed["sample-shard"] == 0
    assert run.result.verdict.call == "worse"
    assert run.result.verdict.against == "toy"
    report = Path(run.result.report).read_text()
    link = f"../verdict-{run.result.verdict.digest[:12]}/index.html"
    assert link in report
    assert (Path(run.result.report).parent / link).resolve().is_file()


def test_resaved_weights_are_identical_without_sampling(
    run_grid: Callable[..., GridRun], gated: GridRun, toy: str, resaved: str
) -> None:
    from flows.fid_grid import fid_grid

    asked = {"steps": [3], "etas": [0.0], "sigma_hat": False, "features": "pixels", **SMALL}
    result = fid_grid(checkpoint=resaved, against=toy, gate=True, **asked)
    assert result.verdict.call == "identical"
    assert result.cells == []
    rows = pd.read_parquet(local_dir("results", "cells"))
    assert rows[(rows["steps"] == 3) & (rows["seed"] == SEED)].empty  # S = 3 was never drawn
    again = run_grid(checkpoint=resaved, against="none", **SMALL)
    assert again.computed["sample-shard"] == 0  # the toy's own cells stand for it
    assert again.state == "Completed"


def test_the_verdict_command_reads_the_table_and_gates(
    gated: GridRun, toy: str, noisy: str
) -> None:
    worse = ddim("verdict", noisy, "--against", toy, "--gate")
    assert worse.exit_code == 1
    assert "Worse at S = 2" in worse.stdout
    page = Path(re.search(r"verdict: (.*)", worse.stdout)[1]).read_text()  # type: ignore[index]
    assert f">ddim verdict {noisy} --against {toy} --gate</pre>" in page
    assert '"left":' in page  # both checkpoints' pictures, to compare
    assert "proven worse" in worse.stderr
    better = ddim("verdict", toy, "--against", noisy, "--gate", "--at", "2,1")
    assert better.exit_code == 0
    assert "Better at S = 2, eta = 1" in better.stdout
    same = ddim("verdict", toy, "--against", toy)
    assert same.exit_code == 0
    assert "Identical" in same.stdout
    curve = ddim("curve", "--cell", "2,0")
    assert curve.exit_code == 0
    assert "S = 2, eta = 0" in Path(curve.stdout.split("curve: ")[1].strip()).read_text()


def test_with_twins_a_difference_that_trainings_have_opens_the_gate_and_is_said(
    run_grid: Callable[..., GridRun], gated: GridRun, toy: str, noisy: str
) -> None:
    twins = [toy, noisy]
    run = run_grid(checkpoint=noisy, against=toy, gate=True, twins=twins, **SMALL)
    assert (run.state, run.computed["sample-shard"]) == ("Completed", 0)
    assert run.result.verdict.call == "tied"
    told = ddim("verdict", noisy, "--against", toy, "--twins", ",".join(twins), "--gate")
    assert told.exit_code == 0
    assert "The difference is within training noise: 2 trainings of one recipe" in told.stdout
    page = Path(re.findall(r"verdict: (.*)", told.stdout)[0]).read_text()
    assert "tied (training noise)" in page
    found = verdicts()
    found = found[(found["checkpoint"] == "noisy") & found["training_sd"].notna()]
    assert [list(names) for names in found["twins"]] == [["toy", "noisy"]] * 2
    assert (found["training_sd"] < found["training_sd_high"]).all()
    band = ddim("curve", "--cell", "2,0", "--twins", ",".join(twins))
    assert "from 2 trainings" in Path(band.stdout.split("curve: ")[1].strip()).read_text()


def test_pages_say_how_many_rows_are_unverified_and_how_many_are_left_out(
    gated: GridRun, toy: str, noisy: str
) -> None:
    cell = next(row.cell_digest for row in read_rows().rows if row.seed == SEED)
    ours = local_dir("results", "cells") / f"{cell}.parquet"
    damaged, kept = ours.with_name(f"{'0' * 64}.parquet"), ours.read_bytes()
    ours.write_bytes(unsealed(kept))
    damaged.write_bytes(kept[:-9])
    try:
        for words in (("curve",), ("verdict", noisy, "--against", toy)):
            done = ddim(*words)
            assert done.exit_code == 1
            page = Path(re.findall(r"(?:curve|verdict): (.*)", done.stdout)[0]).read_text()
            assert re.search(r"Of the table: 1 of \d+ rows carry no seal", page)
            assert "Of the table: 1 row is damaged and left out" in page
    finally:
        ours.write_bytes(kept)
        damaged.unlink()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("verdict nobody", "no rows of 'nobody'"),
        ("curve nobody-*", "no checkpoint in the table is named"),
        ("curve --cell 7,7", "no cell '7,7'"),
        ("grid --against no/such", "'no/such'"),
        ("grid --margin -1", "margin is -1.0"),
        ("grid --at 7,0", "at is '7,0'"),
        ("grid --gate --against none", "a gate needs a checkpoint"),
        ("grid --twins nobody-*", "no rows of 'nobody-*'"),
        ("grid --twins toy,noisy --against none", "they need another checkpoint"),
        ("verdict noisy --against toy --twins toy", "toy alone tells no spread"),
        ("verdict noisy --against toy --twins toy,toy", "toy and toy are the same weights"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_sentence(
    gated: GridRun, words: str, wanted: str
) -> None:
    refused = ddim(*words.split())
    assert refused.exit_code == 2, refused.stderr
    assert wanted in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("ddim: ")
