"""What speaks for a cell: its row, and its paired differences from the rows of its protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ddim_core.decisions.compare import compare, unpaired_fields
from ddim_core.decisions.row import CellRow, cell_name, sampler_of

SCORES = (
    "fid", "fid_low", "fid_high", "fid_inf", "fid_inf_low", "fid_inf_high", "kid", "kid_se",
    "kid_low", "kid_high", "precision", "recall", "class_accuracy",
)  # fmt: skip
SETTING = (
    "steps", "eta", "variance", "spacing", "clip", "guidance_scale", "guidance_interval",
    "prediction_type",
    "noise_schedule", "overrides", "timesteps", "sigmas", "dtype", "device", "seed", "pipeline",
)  # fmt: skip
TOO_FEW = "there are too few images for intervals, so that it was compared with no other row"
ALONE = "the table holds no other row of its protocol, so that it was compared with none"


@dataclass(frozen=True)
class Compared:
    """Another row of the same protocol and noise, and how the cell's FID lies to it.

    Attributes:
        cell, name, checkpoint: Which row it is.
        fid, nfe: Its own.
        difference, low, high: FID of the cell minus FID of this row, with an interval that holds
            with 95 % for all pairs of rows of the protocol, since a cell is chosen among them by
            the same numbers.
        p_value: Two-sided, of this pair alone.
        p_adjusted: Corrected as the interval is (Bonferroni).
        verdict: Of the cell against this row: better, worse or tied.
    """

    cell: str
    name: str
    checkpoint: str
    fid: float
    nfe: int
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    verdict: str


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a cell.

    Attributes:
        row: Its row of the table.
        compared: The rows it was compared with, by FID.
        why_none: Why it was compared with none; empty where it was.
    """

    row: CellRow
    compared: tuple[Compared, ...]
    why_none: str = ""


def evidence_of(row: CellRow, table: Sequence[CellRow]) -> Evidence:
    """Compares a row with all rows of a table whose images are pairs of its own.

    Args:
        row: The cell's.
        table: All rows that there are, this one among them or not.
    """
    others = [
        other
        for other in table
        if other.cell_digest != row.cell_digest and not unpaired_fields(row, other)
    ]
    if len(row.fid_leave_one_out) < 2:
        return Evidence(row, (), TOO_FEW)
    if not others:
        return Evidence(row, (), ALONE)
    rows = [row, *others]
    places = list(combinations(range(len(rows)), 2))
    found = compare((rows[i], rows[j]) for i, j in places)
    compared = [
        Compared(
            cell=rows[j].cell_digest,
            name=cell_name(rows[j]),
            checkpoint=rows[j].checkpoint,
            fid=rows[j].fid,
            nfe=rows[j].nfe,
            difference=test.value,
            low=test.low,
            high=test.high,
            p_value=test.p_value,
            p_adjusted=test.p_adjusted,
            verdict=test.verdict,
        )
        for (i, j), test in zip(places, found, strict=True)
        if i == 0
    ]
    return Evidence(row, tuple(sorted(compared, key=lambda other: other.fid)))


def as_json(evidence: Evidence, more: Mapping[str, Any]) -> str:
    """Returns the evidence as JSON, for programs.

    Args:
        evidence: Of the cell.
        more: What else stands beside it, by name.
    """
    row = evidence.row
    told = {
        "cell": row.cell_digest,
        "checkpoint": {
            "name": row.checkpoint, "digest": row.checkpoint_digest,
            "weights_digest": row.weights_digest, "training_step": row.training_step,
        },
        "sampler": sampler_of(row),
        "setting": {name: getattr(row, name) for name in SETTING},
        "nfe": row.nfe,
        "scores": {name: getattr(row, name) for name in SCORES},
        "protocol": json.loads(row.protocol) if row.protocol else None,
        "created_at": row.created_at,
        "compared": [vars(other) for other in evidence.compared],
        "why_compared_with_none": evidence.why_none or None,
        **more,
    }  # fmt: skip
    return json.dumps(told, indent=2) + "\n"
