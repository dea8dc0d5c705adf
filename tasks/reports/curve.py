"""The checkpoint curve as a page of its own: FID with intervals over training steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddim_core.common.digest import digest
from ddim_core.decisions.checkpoints.twins import noise_over_steps
from ddim_core.decisions.measure import FID
from ddim_core.decisions.place import names_cell
from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.reports.verdicts.sentences import best_of, by_checkpoint
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.reports.verdict_page import MOST_CURVES, called

TEMPLATE = Path(__file__).with_suffix(".html")


def write_curve(
    last: Sequence[CellRow],
    comparable: Sequence[CellRow],
    cells: Sequence[str],
    remarks: Sequence[str] = (),
    twins: Sequence[Sequence[CellRow]] = (),
    command: str = "",
) -> str:
    """Writes the page to reports/curve-<digest>/ and returns its place.

    Args:
        last: Rows of the checkpoint scored last, for the choice of cells.
        comparable: Rows of all checkpoints by its protocol.
        cells: Cells asked for, S and eta, such as `20,0.5`; empty takes the best of `last`.
        remarks: What is to be said of the table's rows: unverified, left out.
        twins: The rows of trainings of one recipe, for the band of training noise; several of a
            training step, at one step or more.
        command: What asks for it, for the page's end.

    Raises:
        ValueError: If the twins cannot be compared: which, and why.
    """
    ranked = [cell_name(row) for row in sorted(last, key=lambda row: row.fid)]
    asked = [cell_name(row) for cell in cells for row in last if names_cell(row, cell)]
    drawn = asked or ranked[:MOST_CURVES]
    history = by_checkpoint([row for row in comparable if cell_name(row) in ranked])
    chosen = [row for row in last if cell_name(row) in drawn]
    noise = noise_over_steps(twins, chosen) if twins else {}
    course = charts.over_checkpoints(history, drawn, FID, noise=noise)
    text = page.html(TEMPLATE, {}, {
        "reading": [_lowest(history)],
        "data": {"lines": {"checkpoints": course}},
        "of_cell": _of_cell, "cell_name": cell_name, "cells": drawn,
        "first": last[0], "identities": page.identities(comparable), "history": history,
        "checkpoints": [
            (called(rows[0].checkpoint, rows[0].training_step), rows[0].checkpoint_digest)
            for rows in history
        ],
        "best_of": best_of, "remarks": remarks, "noise": noise,
    })  # fmt: skip
    named = [sorted(row.cell_digest for rows in twins for row in rows)] if twins else []
    identity = digest(sorted(row.cell_digest for row in comparable), drawn, *named)
    told = page.told_at_the_end(text, command)
    return page.put(f"curve-{identity[:12]}", told.encode())


def _lowest(history: Sequence[Sequence[CellRow]]) -> str:
    """Says which checkpoint has the lowest FID, which is no proof that it is the best."""
    best = min((row for rows in history for row in rows), key=FID.cost)
    n = f"{len(history)} checkpoint" + ("s" if len(history) > 1 else "")
    return (
        f"The lowest FID of {n} is {FID.shown(best)}, of "
        f"{called(best.checkpoint, best.training_step)} at {cell_name(best)}; whether it is proven "
        "better than another, ddim verdict says."
    )


def _of_cell(rows: Sequence[CellRow], name: str) -> CellRow | None:
    """A checkpoint's row of a cell, if it has one."""
    return next((row for row in rows if cell_name(row) == name), None)
