"""Which rows of the table differ: paired tests between them, corrected for their number.

Rows of one protocol and seed share x_T image by image, so two of them are compared by the jackknife
of their difference: what the shared noise moves in both cancels. Tests that answer one question
are corrected together by Holm's procedure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from ddim_core.decisions.row import CellRow
from ddim_core.features.protocol import differing_fields, require_comparable
from ddim_core.statistics.holm import holm
from ddim_core.statistics.paired import (
    PairedDifference,
    paired_difference,
    paired_difference_inf,
)

LEVEL = 0.05
Pair = tuple[CellRow, CellRow]
# What two rows must share for their images to be pairs: what is scored against what, by what, and
# which noise lies in which group.
PAIRED = (
    "extractor_digest", "reference_digest", "resolution", "n_images", "shard_size", "seed",
    "group_sizes",
)  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """FID of row a minus FID of row b, and whether that can be told from 0.

    Attributes:
        a, b: The rows' cell digests.
        value, low, high: The difference with its own 95 % interval (of this pair alone).
        se: Its standard error.
        p_value: Two-sided, of this pair alone.
        p_adjusted: Corrected for all comparisons that were made with it (Holm).
    """

    a: str
    b: str
    value: float
    se: float
    low: float
    high: float
    p_value: float
    p_adjusted: float

    @property
    def verdict(self) -> Literal["better", "worse", "tied"]:
        """Of a against b, at level 0.05 after the correction: a lower distance is better."""
        if self.p_adjusted >= LEVEL:
            return "tied"
        return "better" if self.value < 0.0 else "worse"


def compare(pairs: Iterable[Pair]) -> list[Comparison]:
    """Compares pairs of rows that answer one question: all of them are corrected together.

    The chance that any pair that is equal in truth is called different is at most 5 %, whichever
    of the others differ.

    Args:
        pairs: Rows of the table.

    Raises:
        ValueError: If two rows cannot be compared (names the fields), or have no interval.
    """
    rows = list(pairs)
    found = [difference(a, b) for a, b in rows]
    adjusted = holm([test.p_value for test in found])
    return [
        Comparison(
            a.cell_digest, b.cell_digest, test.value, test.se, test.low, test.high, test.p_value, p,
        )
        for (a, b), test, p in zip(rows, found, adjusted, strict=True)
    ]  # fmt: skip


def compare_with_best(rows: Sequence[CellRow]) -> tuple[CellRow, dict[int, Comparison]]:
    """Compares every row with the one of the lowest FID.

    The best is chosen by the same numbers, so the correction counts all pairs of rows, not only
    those with the best: then the choice costs nothing of the 5 %.

    Returns:
        The best row, and for the place of each other row in `rows` its comparison (it minus the
        best). Those called tied cannot be told from the best.
    """
    best = min(range(len(rows)), key=lambda i: rows[i].fid)
    places = list(combinations(range(len(rows)), 2))
    # In each pair the best stands second.
    ordered = [(j, i) if i == best else (i, j) for i, j in places]
    found = compare((rows[i], rows[j]) for i, j in ordered)
    return rows[best], {i: c for (i, j), c in zip(ordered, found, strict=True) if j == best}


def tied_with_best(rows: Sequence[CellRow]) -> list[CellRow]:
    """Returns the row of the lowest FID, and then those that cannot be told from it, by FID."""
    best, others = compare_with_best(rows)
    ties = [rows[i] for i, found in others.items() if found.verdict == "tied"]
    return [best, *sorted(ties, key=lambda row: row.fid)]


def difference(a: CellRow, b: CellRow) -> PairedDifference:
    """FID of a minus FID of b, both at N images, by their shared groups.

    Raises:
        ValueError: If the rows cannot be compared (names the fields), or have no interval.
    """
    require_paired(a, b)
    loo_a, loo_b = a.fid_leave_one_out, b.fid_leave_one_out
    return paired_difference(loo_a, loo_b, a.fid, b.fid, a.group_sizes)


def difference_inf(a: CellRow, b: CellRow) -> PairedDifference:
    """FID_inf of a minus FID_inf of b, by their shared groups; errors as `difference`."""
    require_paired(a, b)
    loo_a, loo_b = a.fid_inf_leave_one_out, b.fid_inf_leave_one_out
    if loo_a is None or loo_b is None or a.fid_inf is None or b.fid_inf is None:
        raise ValueError("fid_inf is null in a row; there are too few images for it")
    return paired_difference_inf(loo_a, loo_b, a.fid_inf, b.fid_inf, a.group_sizes)


def unpaired_fields(a: CellRow, b: CellRow) -> list[str]:
    """Names the fields in which two rows differ although a paired test needs them equal."""
    unequal = [name for name in PAIRED if getattr(a, name) != getattr(b, name)]
    return list(dict.fromkeys([*unequal, *differing_fields(a, b)]))


def require_paired(a: CellRow, b: CellRow) -> None:
    """Refuses two rows whose images are no pairs.

    Raises:
        ValueError: Names every field in which they differ, with both values.
    """
    different = unpaired_fields(a, b)
    if set(different) - set(PAIRED):
        require_comparable(a, b)  # it knows what the protocol's record says of both
    if different:
        said = "; ".join(f"{name} is {_short(a, name)} and {_short(b, name)}" for name in different)
        raise ValueError(f"rows of different protocol or noise cannot be compared: {said}")


def comparable_sets(rows: Sequence[CellRow]) -> list[list[CellRow]]:
    """Parts rows into sets within which all may be compared, in order of their first row."""
    sets: list[list[CellRow]] = []
    for row in rows:
        home = next((s for s in sets if not unpaired_fields(s[0], row)), None)
        if home is None:
            sets.append([row])
        else:
            home.append(row)
    return sets


def _short(row: CellRow, name: str) -> str:
    value = getattr(row, name)
    if name == "group_sizes" and value is not None:
        return f"{len(value)} groups of {min(value)} to {max(value)} images" if value else "none"
    return repr(value[:12] if name.endswith("_digest") and value else value)
