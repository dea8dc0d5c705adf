"""Verdicts out of rows: who is compared with whom, the rows of a verdict, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ddim_core.common.digest import digest
from ddim_core.decisions.verdict import PROTOCOL, SETTING, CellVerdict, Row, Verdict, pareto
from ddim_core.reports.verdict_sentences import best_of, first_scored
from tasks.storage import places
from tasks.storage.cell_rows import read_rows
from tasks.storage.row_files import write_sealed

SCHEMA = pa.schema(
    [
        ("verdict_digest", pa.string()),
        ("verdict", pa.string()),
        ("checkpoint", pa.string()),
        ("weights_digest", pa.string()),
        ("training_step", pa.int64()),
        ("against", pa.string()),
        ("against_weights_digest", pa.string()),
        ("against_training_step", pa.int64()),
        ("cell_digest", pa.string()),
        ("against_cell_digest", pa.string()),
        ("steps", pa.int64()),
        ("eta", pa.float64()),
        ("variance", pa.string()),
        ("spacing", pa.string()),
        ("clip", pa.bool_()),
        ("guidance_scale", pa.float64()),
        ("extractor_digest", pa.string()),
        ("reference_digest", pa.string()),
        ("n_images", pa.int64()),
        ("seed", pa.int64()),
        ("nfe", pa.int64()),
        ("fid", pa.float64()),
        ("fid_against", pa.float64()),
        ("difference", pa.float64()),
        ("difference_low", pa.float64()),
        ("difference_high", pa.float64()),
        ("p_value", pa.float64()),
        ("p_corrected", pa.float64()),
        ("call", pa.string()),
        ("operating_point", pa.bool_()),
        ("best", pa.bool_()),
        ("tied_with_best", pa.bool_()),
        ("on_pareto_front", pa.bool_()),
        ("level", pa.float64()),
        ("margin", pa.float64()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)


def plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of the table as plain values: None for what is missing, lists, times as ISO text."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def history(rows: Sequence[Row]) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Returns all rows of the table that are comparable with a checkpoint's rows (the same cells by
    the same protocol, of any checkpoint), and a sentence for each row that is damaged."""
    wanted = {tuple(row[name] for name in SETTING) for row in rows}
    found = read_rows(alike={name: rows[0][name] for name in PROTOCOL})
    comparable = plain_rows(found.frame)
    alike = [row for row in comparable if tuple(row[name] for name in SETTING) in wanted]
    return alike, found.damaged


def previous(rows: Sequence[Row], comparable: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows of the checkpoint that was scored last before this one, with all its cells;
    empty if there is none."""
    ours, since = rows[0]["weights_digest"], _instant(first_scored(rows))
    others: dict[str, list[dict[str, Any]]] = {}
    for row in comparable:
        if row["weights_digest"] not in (ours, None):
            others.setdefault(row["weights_digest"], []).append(row)
    cells = {tuple(row[name] for name in SETTING) for row in rows}
    whole = [
        theirs
        for theirs in others.values()
        if {tuple(row[name] for name in SETTING) for row in theirs} >= cells
    ]
    older = [theirs for theirs in whole if _instant(first_scored(theirs)) < since]
    return max(older, key=lambda theirs: _instant(first_scored(theirs)), default=[])


def about_pair(rows: Sequence[Row], against: Sequence[Row], name: str = "") -> dict[str, Any]:
    """Names two checkpoints by their rows; `name` is another name for the older one."""
    new, old = rows[0], against[0]
    return {
        "checkpoint": new["checkpoint"],
        "weights_digest": new["weights_digest"],
        "training_step": new["training_step"],
        "against": name or old["checkpoint"],
        "against_weights_digest": old["weights_digest"],
        "against_training_step": old["training_step"],
    }


def about_one(checkpoint: str, against: str, weights: str) -> dict[str, Any]:
    """Names two checkpoints that are one by content."""
    return {
        "checkpoint": checkpoint, "weights_digest": weights, "training_step": None,
        "against": against, "against_weights_digest": weights, "against_training_step": None,
    }  # fmt: skip


def verdict_digest(about: dict[str, Any], verdict: Verdict) -> str:
    """Returns the identity of a verdict: both weights, the cells, and how it was judged."""
    cells = [[c.new["cell_digest"], c.baseline["cell_digest"]] for c in verdict.cells]
    point = verdict.point.name if verdict.point else ""
    both = about["weights_digest"], about["against_weights_digest"]
    return digest(both, sorted(cells), point, verdict.level, verdict.margin)


def write_verdict(about: dict[str, Any], verdict: Verdict, rows: Sequence[Row]) -> str:
    """Writes a verdict, a line for each cell, whole or not at all; returns its digest.

    Args:
        about: Names, weights digests and training steps of both checkpoints.
        verdict: What was found; an identical checkpoint has one line and no cell.
        rows: The new checkpoint's rows.
    """
    identity = verdict_digest(about, verdict)
    shared = {
        "verdict_digest": identity, "verdict": verdict.call, "level": verdict.level,
        "margin": verdict.margin, "created_at": datetime.now(UTC), **about,
    }  # fmt: skip
    lines = [shared | _line(cell, verdict, rows) for cell in verdict.cells] or [shared]
    write_sealed(places.data_url("results", "verdicts", f"{identity}.parquet"), lines, SCHEMA)
    return identity


def _line(cell: CellVerdict, verdict: Verdict, rows: Sequence[Row]) -> dict[str, Any]:
    best, front = best_of(rows), [row["cell_digest"] for row in pareto(rows)]
    own = cell.new["cell_digest"]
    columns = (*SETTING, "cell_digest", "extractor_digest", "reference_digest", "n_images", "seed",
               "nfe", "fid")  # fmt: skip
    return {
        **{name: cell.new[name] for name in columns},
        "against_cell_digest": cell.baseline["cell_digest"],
        "fid_against": cell.baseline["fid"],
        "difference": cell.difference,
        "difference_low": cell.low,
        "difference_high": cell.high,
        "p_value": cell.p_value,
        "p_corrected": cell.p_corrected,
        "call": cell.call,
        "operating_point": verdict.point is not None and own == verdict.point.new["cell_digest"],
        "best": own == best.best["cell_digest"],
        "tied_with_best": own in [row["cell_digest"] for row in (best.best, *best.ties)],
        "on_pareto_front": own in front,
    }


def _instant(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)
