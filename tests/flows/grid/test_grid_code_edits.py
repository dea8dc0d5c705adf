"""Edits of the code, each in a copy of the project run by processes of its own."""

from __future__ import annotations

import pytest

from tests.flows.grids import Project, lasting

WORDS = (
    "grid",
    *("--train-steps", "3", "--steps", "2", "--etas", "0,1", "--no-sigma-hat"),
    *("--n-images", "14", "--shard-size", "10", "--features", "pixels"),
)
STEP = "x_s = torch.mul(x0_hat, alpha_bar_s**0.5)"


@pytest.mark.timeout(400)
def test_comments_recompute_nothing_the_report_only_itself_and_arithmetic_what_it_touches(
    copied_project: Project,
) -> None:
    # One story rather than four tests: each run builds on the one before, and costs an import
    # of everything.
    project = copied_project
    first = project.grid(*WORDS, tag="edits-none")
    assert first.computed["train-toy"] == 1
    assert first.computed["sample-shard"] == 4
    rows = lasting(project.rows)

    project.edit("ddim_core/diffusion/sampling.py", f"    {STEP}", f"    # clean part\n    {STEP}")
    project.edit("ddim_core/diffusion/sampling.py", '"""DDIM sampling', '"""Edited. DDIM sampling')
    project.edit("ddim_core/diffusion/sampling.py", '"""Moves images', '"""Edited: moves images')
    assert not project.grid(*WORDS, tag="edits-comment").computed

    project.edit("tasks/reports/grid.html", "<h2>Heat map</h2>", "<h2>The heat map</h2>")
    assert project.grid(*WORDS, tag="edits-page").computed == {"render-report": 1}
    (page,) = (project.data / "reports").glob("*/index.html")
    assert "<h2>The heat map</h2>" in page.read_text()
    assert lasting(project.rows) == rows

    project.edit(
        "ddim_core/diffusion/sampling.py", STEP, STEP.replace("alpha_bar_s", "-1.0 * alpha_bar_s")
    )
    project.edit("tasks/reports/grid.py", "SHEET_IMAGES = 12", "SHEET_IMAGES = 11")
    edited = project.grid(*WORDS, tag="edits-step")
    shards, cells = 2, 2
    assert edited.computed == {
        "sample-shard": shards * cells, "embed-images": shards * cells, "score-cell": cells,
        "render-report": 1,
    }  # fmt: skip
    assert {"prepare-data", "train-toy", "embed-images"} <= edited.from_cache  # the reference's
    assert [row["fid"] for row in project.rows] != [row["fid"] for row in rows]
    assert {row["code_digest"] for row in project.rows} != {row["code_digest"] for row in rows}
