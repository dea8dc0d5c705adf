"""Pages and rows of what was decided by another score than FID, or with a margin."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from ddim_core.decisions.checkpoints.verdict import judge
from ddim_core.decisions.measure import FID, MEASURES
from ddim_core.reports.grid_sentences import read_grid
from tasks.reports import page
from tasks.reports.grid import AboutGrid, _page
from tasks.reports.verdict import about_pair, verdict_digest
from tasks.reports.verdict_page import file_verdict
from tasks.storage import places, store
from tests.core.decisions.test_verdict import Rows, grid, liked

REWARD = MEASURES["image_reward"]


def filled(rows: Rows) -> Rows:
    """Rows with the columns that a grid's page shows besides."""
    return [
        replace(
            row, dataset="digits", split="train", extractor="pixels", kid=0.0, kid_std=0.0,
            kid_subset_size=9, n_features=8, timesteps=[1, 0], sample_seconds=1.0,
            images_per_second=1.0,
        )
        for row in rows
    ]  # fmt: skip


@pytest.fixture(scope="module")
def both() -> tuple[Rows, Rows]:
    ours = filled(liked(grid("worse", 0.6, noise=1), -0.3))
    return ours, filled(liked(grid("old", 0.3, noise=1), -0.5))


def test_a_verdict_is_filed_with_what_decided_it(both: tuple[Rows, Rows]) -> None:
    ours, theirs = both
    about, verdict = about_pair(ours, theirs), judge(ours, theirs, measure=REWARD)
    assert verdict_digest(about, verdict) != verdict_digest(about, judge(ours, theirs))
    before = filled(grid("before", 0.5, noise=1))  # scored before there were such scores
    filed = file_verdict(about, verdict, ours, [*before, *theirs, *ours])
    page = store.read(filed.page).decode()
    assert "where both checkpoints together have the highest ImageReward" in page
    assert "<th>ImageReward, new</th>" in page
    assert "6 rows without image_reward by these weights are not in the course" in page
    place = places.data_url("results", "verdicts", f"{filed.digest}.parquet")
    table = pq.read_table(io.BytesIO(store.read(place))).to_pylist()
    (point,) = [row for row in table if row["operating_point"]]
    assert (point["decide_by"], point["call"]) == ("image_reward", "better")
    assert point["score"] == pytest.approx(-0.25)
    assert point["fid"] > point["fid_against"]  # which would have said worse


def test_a_verdict_links_the_grids_of_both_even_where_they_have_one_name(
    both: tuple[Rows, Rows],
) -> None:
    ours, theirs = (
        [replace(row, checkpoint="unet", training_step=step) for row in rows]
        for rows, step in zip(both, (200, 100), strict=True)
    )
    old = page.grid_folder(row.cell_digest for row in theirs)
    page.put(old, b"<!doctype html>")
    about, verdict = about_pair(ours, theirs), judge(ours, theirs)
    filed = file_verdict(about, verdict, ours, [*theirs, *ours], grid="new")  # its page comes after
    text = store.read(filed.page).decode()
    assert f'<a href="../{old}/index.html">The grid of unet (step 100)</a>' in text
    assert '<a href="../new/index.html">The grid of unet (step 200)</a>' in text
    assert "<title>Verdict: unet (step 200) against unet (step 100)</title>" in text


def test_a_grids_page_marks_tied_what_may_be_the_best_and_what_to_take(
    both: tuple[Rows, Rows],
) -> None:
    rows = both[0]
    about = AboutGrid(None, None, [], [], None, [], decide_by="image_reward", margin=0.015)
    ranking = about.ranked(rows)
    assert ranking is not None
    page = _page(rows, read_grid(rows, REWARD, ranking.margin), about, None)
    lines = re.findall(r'<tr class="([a-z ]*)">(.*?)</tr>', page, re.DOTALL)
    assert len(lines) == len(rows)
    for found, (mark, cells) in zip(ranking.standings, lines, strict=True):
        assert ("tied" in mark) == found.tied == (f">[{0:.3f}, " in cells)
        assert ("recommended" in mark) == (found.row is ranking.recommended)
    assert "not to be worse by more than 0.015 (as asked)" in page
    assert "<th>ImageReward</th>" in page
    assert '<section class="answer" ' in page


def test_a_grid_that_proves_nothing_does_not_look_as_if_it_did(both: tuple[Rows, Rows]) -> None:
    rows = both[0]
    about = AboutGrid(None, None, [], [], None, [], decide_by="fid", margin=0.00042)
    page = _page(rows, read_grid(rows, FID, about.ranked(rows).margin), about, None)
    assert "Nothing is proven good enough to ship yet." in page
    assert '<section class="answer open" ' in page
    assert "not shown to be within 0.00042 (as asked) of the best" in page
