"""What the scripts of a grid's page read: its cells, what they can be shown by, their pictures."""

from __future__ import annotations

from collections.abc import Sequence

from ddim_core.common.foreign import Json
from ddim_core.decisions.best import Ranking
from ddim_core.decisions.measure import MEASURES, Measure
from ddim_core.decisions.row import CellRow, cell_name, line_name
from ddim_core.scores.cell_score import CellScore
from tasks.reports.frame.pictures import Pictures, picture_data
from tasks.storage.previews import CELL_DIGITS

# Columns that a chart can show besides what can decide: title, and whether less is better.
MORE = {
    "fid_population": ("FID between populations", True),
    "kid": ("KID \N{MULTIPLICATION SIGN} 10\N{SUPERSCRIPT THREE}", True),
    "precision": ("precision", False),
    "recall": ("recall", False),
    "density": ("density", False),
    "coverage": ("coverage", False),
    "class_accuracy": ("share of the asked class", False),
}
TIMES = {"kid": 1000}  # as its title says


def grid_data(
    rows: Sequence[CellRow],
    ranking: Ranking | None,
    measure: Measure,
    floor: CellScore | None,
    pictures: Pictures | None,
) -> Json:
    """Returns plain JSON.

    Args:
        rows: Of a grid.
        ranking: The rows beside the best; None with too few images for intervals.
        measure: What decides.
        floor: The score of held-out real images, where there are any.
        pictures: By cell, as `told_id` names it; None where there are none.
    """
    told: list[tuple[str, str, bool, bool]] = [
        (m.name, m.title, m.lower_is_better, m.lower_is_better) for m in MEASURES.values()
    ]
    told += [(name, title, lower, False) for name, (title, lower) in MORE.items()]
    known = [one for one in told if any(_value(row, one[0]) for row in rows)]
    as_many = floor is not None and floor.n_images == rows[0].n_images  # else the bias of N differs
    return {
        "cells": [
            {**_cell(row, ranking, [one[0] for one in known]), "note": scored(row, measure)}
            for row in rows
        ],
        "measures": [
            dict(zip(("name", "title", "lower", "log"), one, strict=True)) for one in known
        ],
        "measure": measure.name,
        "floor": {"y": floor.fid, "text": f"held-out real images: {floor.fid:.2f}"}
        if floor is not None and as_many
        else None,
        "images": picture_data(pictures) if pictures else None,
    }


def told_id(row: CellRow) -> str:
    """Names a cell to people and to a page's scripts."""
    return row.cell_digest[:CELL_DIGITS]


def scored(row: CellRow, measure: Measure) -> str:
    """Says what a cell's pictures score, with the interval and the number of images."""
    return f"{measure.title} {measure.shown(row)}, N = {row.n_images} images"


def compared_at_first(
    rows: Sequence[CellRow], ranking: Ranking | None, measure: Measure
) -> tuple[str, str]:
    """Names what to ship (or the best), and the cell that differs most from it in what decides."""
    first = (ranking and ranking.recommended) or min(rows, key=measure.cost)
    other = max(rows, key=lambda row: abs(measure.value(row) - measure.value(first)))
    return told_id(first), told_id(other)


def _cell(row: CellRow, ranking: Ranking | None, names: Sequence[str]) -> Json:
    found = next((s for s in ranking.standings if s.row is row), None) if ranking else None
    standing = ""
    if ranking and found:
        standing = "worse than the best by " + ranking.measure.worse_by(found.low, found.high)
        standing += ": cannot be told from it" if found.tied else ""
    return {
        "id": told_id(row),
        "name": cell_name(row),
        "line": line_name(row),
        "steps": row.steps,
        "calls": row.nfe,
        "n": row.n_images,
        "rate": row.images_per_second,
        "values": {name: value for name in names if (value := _value(row, name))},
        "standing": standing,
        "tied": bool(found and found.tied),
        "ship": bool(ranking and ranking.recommended is row),
    }


def _value(row: CellRow, name: str) -> list[float | None] | None:
    """A column's value with its interval, where the row has one."""
    value = getattr(row, name)
    low, high = (getattr(row, f"{name}_{end}", None) for end in ("low", "high"))
    times = TIMES.get(name, 1)
    found = [None if x is None else times * x for x in (value, low, high)]
    return None if value is None else found
