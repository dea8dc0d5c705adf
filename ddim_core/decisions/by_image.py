"""Cells compared image by image, by scores that every image has: what these tell, in how many
images, and in how many FID would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.compare import LEVEL, difference
from ddim_core.decisions.row import CellRow, cell_name, score_digests
from ddim_core.image_scores.mean import FEWEST_PROMPTS, image_by_image
from ddim_core.image_scores.registry import SCORES
from ddim_core.statistics.paired import PairedDifference

# Standard normal: of a two-sided test at 5 %, and of a chance of 80 % to pass it.
TWO_SIDED, OF_POWER = 1.959964, 0.841621
# What two rows must share for their images to be pairs of one score.
PAIRED = ("seed", "n_images", "resolution", "prompts_digest")
Values = NDArray[np.float32]


def shared_scores(rows: Sequence[CellRow]) -> tuple[str, ...]:
    """Returns the columns of the scores by which all rows were judged with the same weights, on
    images of the same prompts and noise, in the order of `SCORES`."""
    if not rows or any(_unequal(rows[0], row) for row in rows):
        return ()
    digests = [score_digests(row) for row in rows]
    columns = [kind.column for kind in SCORES.values()]
    return tuple(c for c in columns if c in digests[0] and len({d.get(c) for d in digests}) == 1)


def score_difference(
    a: CellRow, b: CellRow, column: str, values_a: Values, values_b: Values
) -> PairedDifference | None:
    """A score of a minus that of b, image by image; None of one image.

    Args:
        a, b: Rows.
        column: Of the score.
        values_a, values_b: [n] their images' numbers, in order of image index.

    Raises:
        ValueError: If other weights judged them, or their images are no pairs; names the fields.
    """
    one, other = (score_digests(row).get(column) for row in (a, b))
    if one is None or one != other:
        raise ValueError(
            f"{column} of the cells {a.cell_digest[:12]} and {b.cell_digest[:12]} is by other "
            f"weights or none ({(one or 'none')[:12]} and {(other or 'none')[:12]}); run both "
            "with the same --image-scores"
        )
    if fields := _unequal(a, b):
        told = "; ".join(f"{f} is {getattr(a, f)!r} and {getattr(b, f)!r}" for f in fields)
        raise ValueError(f"images of these cells are no pairs: {told}")
    return image_by_image(values_a, values_b, a.image_score_prompts)


def images_needed(n: int, found: PairedDifference) -> int | None:
    """How many images a cell it takes to tell two cells apart at 5 % in 80 % of tries.

        n ((z_0.975 + z_0.8) se / difference)^2

    taking the difference that n images show for the true one, and se to fall as 1 / sqrt(n). None
    where they show no difference.

    Args:
        n: Images a cell that the difference was found with.
        found: It, with its standard error.
    """
    if found.value == 0.0:
        return None
    return max(2, math.ceil(n * ((TWO_SIDED + OF_POWER) * found.se / found.value) ** 2))


def read_image_scores(rows: Sequence[CellRow], values: Mapping[str, Sequence[Values]]) -> list[str]:
    """Says which cell each score of images prefers, and how many images it takes beside FID.

    Args:
        rows: Of one grid.
        values: By column, the numbers of each row's images.

    Returns:
        Sentences of plain text.
    """
    columns = [column for column in shared_scores(rows) if column in values]
    said = [_best(rows, column, values[column]) for column in columns]
    return said + (_needed(rows, values, columns) if columns else [])


def _best(rows: Sequence[CellRow], column: str, values: Sequence[Values]) -> str:
    best = max(range(len(rows)), key=lambda i: float(getattr(rows[i], column)))
    row = rows[best]
    value, low, high = (getattr(row, column + part) for part in ("", "_low", "_high"))
    interval = "" if low is None else f" [{low:.4g}, {high:.4g}]"
    over = f"the means of {row.image_score_prompts} prompts" if _over_prompts(row) else "images"
    sentence = (
        f"{column} is highest at {cell_name(row)}: {value:.4g}{interval}, {row.n_images} images, "
        f"interval over {over}"
    )
    n_others, n_pairs = len(rows) - 1, len(rows) * (len(rows) - 1) // 2
    if not n_others:
        return f"{sentence}."
    tests = [
        score_difference(row, rows[i], column, values[best], values[i])
        for i in range(len(rows))
        if i != best
    ]
    lower = sum(test is not None and test.p_value * n_pairs < LEVEL for test in tests)
    if n_others == 1:
        told = "is lower" if lower else "cannot be told from it"
        return f"{sentence}; image by image the other cell {told}."
    return (
        f"{sentence}; image by image {lower} of {n_others} other cells are lower, corrected for "
        f"all {n_pairs} pairs of cells."
    )


def _needed(
    rows: Sequence[CellRow], values: Mapping[str, Sequence[Values]], columns: Sequence[str]
) -> list[str]:
    if len(rows) < 2 or any(len(row.fid_leave_one_out) < 2 for row in rows):
        return []
    first, second = sorted(range(len(rows)), key=lambda i: rows[i].fid)[:2]
    a, b = rows[first], rows[second]
    fid = difference(a, b)
    by_fid = _count(a.n_images, fid)
    if (images_needed(a.n_images, fid) or math.inf) <= a.n_images:
        # With fewer its bias moves, and its error does not go as 1 / sqrt(N).
        by_fid = f"no more than these {a.n_images:,} images a cell"
    parts = []
    for column in columns:
        found = score_difference(a, b, column, values[column][first], values[column][second])
        if found is not None:
            parts.append(f"{column} {_count(a.n_images, found)}")
    if not parts:
        return []
    prompts = ", with as many more prompts" if _over_prompts(a) else ""
    return [
        f"To tell {cell_name(a)} from {cell_name(b)}, the two cells of the lowest FID, at 5 % in "
        f"80 % of tries, FID takes {by_fid}; image by image{prompts}, "
        f"{', '.join(parts)}. "
        "These counts take this grid's differences for the true ones: of a difference that its own "
        "interval cannot tell from 0 they are no more than an order of magnitude."
    ]


def _count(n: int, found: PairedDifference) -> str:
    """How many images it takes, with the difference that says so."""
    needed = images_needed(n, found)
    shown = f"difference {found.value:.3g}, standard error {found.se:.2g}"
    if needed is None:
        return f"cannot ({shown})"
    rounded = round(needed, 2 - len(str(needed)))
    return f"about {rounded:,} images a cell ({shown})"


def _over_prompts(row: CellRow) -> bool:
    """Tells whether a row's intervals are over the means of prompts (`mean_score`)."""
    n_prompts = row.image_score_prompts
    return n_prompts is not None and FEWEST_PROMPTS <= n_prompts < row.n_images


def _unequal(a: CellRow, b: CellRow) -> list[str]:
    return [name for name in PAIRED if getattr(a, name) != getattr(b, name)]
