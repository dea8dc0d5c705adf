"""What the scripts of a grid's page read: its cells, what they can be shown by, their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.foreign import Json
from ddim_core.decisions.best import Ranking
from ddim_core.decisions.measure import MEASURES, Measure
from ddim_core.decisions.row import CellRow, cell_name, line_name
from ddim_core.scores.cell_score import CellScore
from tasks.reports.frame.nearest import UNIT, Images, nearest_real
from tasks.reports.frame.sprites import sprites

CELL_DIGITS = 10  # of a cell's digest, by which `ddim score` and `ddim export` find it
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
    images: Mapping[str, Images],
    by_image: Mapping[str, Sequence[NDArray[np.float32]]],
    real: Images | None,
) -> Json:
    """Returns plain JSON.

    Args:
        rows: Of a grid.
        ranking: The rows beside the best; None with too few images for intervals.
        measure: What decides.
        floor: The score of held-out real images, where there are any.
        images: By cell digest, uint8 [n, height, width, channels] from the same noise.
        by_image: By column of a score of images, each row's numbers in order of image index.
        real: The reference's images, where it has some.
    """
    told: list[tuple[str, str, bool, bool]] = [
        (m.name, m.title, m.lower_is_better, m.lower_is_better) for m in MEASURES.values()
    ]
    told += [(name, title, lower, False) for name, (title, lower) in MORE.items()]
    known = [one for one in told if any(_value(row, one[0]) for row in rows)]
    as_many = floor is not None and floor.n_images == rows[0].n_images  # else the bias of N differs
    return {
        "cells": [_cell(row, ranking, [one[0] for one in known]) for row in rows],
        "measures": [
            dict(zip(("name", "title", "lower", "log"), one, strict=True)) for one in known
        ],
        "measure": measure.name,
        "floor": {"y": floor.fid, "text": f"held-out real images: {floor.fid:.2f}"}
        if floor is not None and as_many
        else None,
        "images": _images(rows, ranking, measure, images, by_image, real) if images else None,
    }


def _cell(row: CellRow, ranking: Ranking | None, names: Sequence[str]) -> Json:
    found = next((s for s in ranking.standings if s.row is row), None) if ranking else None
    standing = ""
    if ranking and found:
        standing = "worse than the best by " + ranking.measure.worse_by(found.low, found.high)
        standing += ": cannot be told from it" if found.tied else ""
    return {
        "id": row.cell_digest[:CELL_DIGITS],
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


def _images(
    rows: Sequence[CellRow],
    ranking: Ranking | None,
    measure: Measure,
    images: Mapping[str, Images],
    by_image: Mapping[str, Sequence[NDArray[np.float32]]],
    real: Images | None,
) -> Json:
    """Strips of pictures, what they can be sorted by, and which two are compared at first: what
    to ship (or the best), and the cell that differs most from it in what decides."""
    batches = {digest[:CELL_DIGITS]: batch for digest, batch in images.items()}
    channels = next(iter(batches.values())).shape[-1]
    alike = real is not None and len(real) > 0 and real.shape[-1] == channels
    nearest = nearest_real(batches, real) if real is not None and alike else None
    beside = {} if real is None or nearest is None else {
        f"real {name}": real[numbers] for name, numbers in nearest.numbers.items()
    }  # fmt: skip
    found = sprites({**batches, **beside})
    first = (ranking and ranking.recommended) or min(rows, key=measure.cost)
    other = max(rows, key=lambda row: abs(measure.value(row) - measure.value(first)))
    return {
        **vars(found),
        "sheets": {name: found.sheets[name] for name in batches},
        "orders": {
            column: {
                row.cell_digest[:CELL_DIGITS]: [float(x) for x in values[: found.count]]
                for row, values in zip(rows, scores, strict=True)
            }
            for column, scores in by_image.items()
        },
        "nearest": nearest
        and {
            **vars(nearest),
            "unit": UNIT,
            "sheets": {name: found.sheets[f"real {name}"] for name in batches},
        },
        "left": first.cell_digest[:CELL_DIGITS],
        "right": other.cell_digest[:CELL_DIGITS],
    }
