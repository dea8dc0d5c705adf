"""Names come from folders that anyone may have made: a report shows them and runs none of them."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from ddim_core.common.digest import digest
from ddim_core.common.printable import printable
from ddim_core.decisions.row import CellRow
from ddim_core.images.export import card
from ddim_core.images.image_set import ImageSet
from tasks.reports import paper
from tasks.reports.grid import AboutGrid, _markdown, render_report
from tasks.storage import places, store
from tasks.storage.cell_rows import SCHEMA, write_row

PLANTED = [
    "<img src=x onerror=alert(1)>",
    "a|b",
    "`</code><script>alert(1)</script>",
    "$x^$ \\frac",
    "[a](javascript:alert(1))",
    "two\nlines\x1b[31m",
    "half a \udce9 name",
]
MARK = "planted" + "0" * 57  # finds the rows of this file in a shared table
FIGURES = (
    "table_1", "table_2", "figure_3_samples", "figure_4_cost", "figure_5_consistency",
    "figure_6_line", "figure_6_grid", "x0_sequence", "reconstructions",
)  # fmt: skip
PLAIN: dict[str, Any] = {"string": "x", "int64": 1, "double": 1.0, "bool": False}


def rows_named(name: str) -> list[CellRow]:
    """Two rows as the flow writes them, of a checkpoint and a data set of this name."""
    plain = {field.name: PLAIN.get(str(field.type), []) for field in SCHEMA}
    named = {"checkpoint": printable(name), "dataset": printable(name), "eta": 0.0,
             "fid_leave_one_out": [1.0] * 20, "group_sizes": [1] * 20, "class_accuracy": None,
             "timesteps": [1, 0], "floor": "{}",
             "variance": "eta", "protocol": "{}",
             "created_at": "2026-01-01T00:00:00+00:00"}  # fmt: skip
    return [
        CellRow(
            **{
                **plain,
                **named,
                "steps": s,
                "cell_digest": digest(name, s),
                "extractor_digest": MARK,
            }
        )
        for s in (5, 10)
    ]


def shard() -> store.ArtifactRef:
    return store.put_arrays({"images": np.zeros((2, 8, 8, 1), np.uint8)}, "shard")


def assert_harmless(page: str) -> None:
    """Takes out the frame's own scripts and links, which no name of the data is part of."""
    policy = re.search('Content-Security-Policy" content="([^"]*)"', page)
    for script in re.findall("<script>(.*?)</script>", page, re.DOTALL) if policy else []:
        sha256 = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{sha256}'" in html.unescape(policy[1])  # which lets this run
        page = page.replace(f"<script>{script}</script>", "")
    for ours in ('<script type="application/json" id="data">', '<a class="skip" href="#main">'):
        page = page.replace(ours, "", 1)
    page = re.sub('<nav class="top".*?</nav>', "", page, count=1, flags=re.DOTALL)
    lower = page.lower()
    for tag in ("<img src=x", "<script", "<a "):
        assert tag not in lower
    assert not any(c != "\n" and not c.isprintable() for c in page)


def test_page_of_a_grid_shows_planted_names_as_text() -> None:
    name = " ".join(PLANTED)
    rows = rows_named(name)
    about = AboutGrid(
        floor=None, test_accuracy=None, findings=[f"odd {printable(name)}"],
        notes=[f"Real images: {printable(name)}."], verdict=None, matrix=[],
    )  # fmt: skip
    report = render_report.fn(rows, [shard()] * 2, about)
    page = store.get(report.page).decode()
    assert_harmless(page)
    assert all(Image.open(io.BytesIO(store.get(ref))) for ref in report.figures.values())


@pytest.mark.parametrize("name", PLANTED)
def test_markdown_keeps_a_planted_name_in_one_code_span_of_one_line(name: str) -> None:
    for text in (
        _markdown(rows_named(name), ["A sentence."], "place"),
        paper._markdown(rows_named(name), [], ["A sentence."], "place"),
    ):
        head = text.split("\n\n")[0]
        assert "\n" not in head
        bare = "".join(head.split("`")[::2])  # what stands outside of code spans
        assert not set(bare) & set("<>[|$\\")


def test_page_of_the_paper_shows_a_planted_name_as_text() -> None:
    figures = dict.fromkeys(FIGURES, b"")
    for name in PLANTED:
        shown = printable(name)
        real = paper.RealImages(shown, "train", False, 3, [shown])
        drawn = {"consistency": [5, 10], "interpolate": [5], "x0_sequence": [5]}
        page = paper._page(
            rows_named(name),
            [],
            figures,
            ["A sentence."],
            real,
            [shown],
            [shown],
            drawn,
            {"images": None},
        )
        assert_harmless(page)


@pytest.mark.parametrize("name", PLANTED)
def test_data_card_shows_a_planted_name_as_text(name: str) -> None:
    shown = printable(name)
    images = ImageSet(
        np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1]), shown, "train", (shown, "other"),
        licence=shown,
    )  # fmt: skip
    table = [line for line in card([images]).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    bare = "".join(card([images]).split("`")[::2])
    assert not set(bare) & set("<>[$\\")


def test_rows_with_planted_names_are_read_by_duckdb() -> None:
    rows = [row for name in PLANTED for row in rows_named(name)]
    for row in rows:
        write_row(row)
    folder = Path(places.data_url("results", "cells").removeprefix("file://"))
    found = duckdb.sql(
        f"select cell_digest, dataset, steps, fid, len(timesteps) from '{folder}/*.parquet' "
        f"where extractor_digest = '{MARK}'"
    ).fetchall()
    assert sorted(found) == sorted(
        (row.cell_digest, row.dataset, row.steps, 1.0, 2) for row in rows
    )


@pytest.mark.parametrize("name", PLANTED)
def test_a_printable_name_is_one_line_that_can_be_written(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert shown.encode()
    assert printable(shown) == shown
