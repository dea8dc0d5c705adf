"""What tuned settings bought: each beside the stock ones, of as many network calls and of more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddim_core.decisions.compare import LEVEL, Comparison, difference
from ddim_core.decisions.row import CellRow, sampler_of
from ddim_core.statistics.paired import holm, paired_difference


@dataclass(frozen=True)
class Bought:
    """A tuned cell beside stock cells of its guidance.

    Attributes:
        row: Of the tuned cell.
        rival: The stock cell of the lowest FID among those of as many network calls; None where
            there is none.
        against: The tuned cell minus the rival, p-value corrected for all tests made here.
        proven: It is better than every stock cell of as many calls, each corrected.
        matched: The best of the stock cells of more calls that it is proven not to be worse than by
            more than the margin, up to the number of calls at which that fails; None if none.
        p_matched: Of that, corrected.
    """

    row: CellRow
    rival: CellRow | None
    against: Comparison | None
    proven: bool
    matched: CellRow | None
    p_matched: float | None


def is_listed(row: CellRow) -> bool:
    """Tells whether a cell's sampler has a list of timesteps or sigmas of its own."""
    name = sampler_of(row)
    return "timesteps=[" in name or "sigmas=[" in name


def bought(tuned: Sequence[CellRow], stock: Sequence[CellRow], margin: float) -> list[Bought]:
    """Compares tuned cells with stock ones by paired tests, all corrected together (Holm).

    With the stock cells of as many calls the question is whether there is a difference; with those
    of more calls, whether the tuned cell is worse by more than the margin (one-sided). Since a
    tuned cell has to pass against every stock cell of a number of calls, the choice of the best
    among them costs nothing of the 5 %.

    Args:
        tuned, stock: Rows of one grid, with intervals.
        margin: A difference of FID that does not count.

    Raises:
        ValueError: If rows cannot be compared, or have no interval.
    """
    pairs = [(a, b) for a in tuned for b in stock if _alike(a, b) and b.nfe >= a.nfe]
    tests = [difference(a, b) for a, b in pairs]
    alone = [
        test.p_value if a.nfe == b.nfe else _not_worse(a, b, margin)
        for (a, b), test in zip(pairs, tests, strict=True)
    ]
    corrected = dict(zip(_keys(pairs), holm(alone), strict=True)) if pairs else {}
    found = dict(zip(_keys(pairs), zip(tests, alone, strict=True), strict=True))
    said = []
    for row in tuned:
        same = [b for a, b in pairs if a is row and b.nfe == row.nfe]
        rival = min(same, key=lambda b: b.fid) if same else None
        proven = bool(same) and all(
            found[_key(row, b)][0].value < 0.0 and corrected[_key(row, b)] < LEVEL for b in same
        )
        against = None
        if rival is not None:
            test, p = found[_key(row, rival)]
            against = Comparison(
                row.cell_digest, rival.cell_digest, test.value, test.se, test.low, test.high, p,
                corrected[_key(row, rival)],
            )  # fmt: skip
        matched = _matched(row, [b for a, b in pairs if a is row and b.nfe > row.nfe], corrected)
        p_matched = None if matched is None else corrected[_key(row, matched)]
        said.append(Bought(row, rival, against, proven, matched, p_matched))
    return said


def _matched(
    row: CellRow, stock: Sequence[CellRow], corrected: dict[tuple[str, str], float]
) -> CellRow | None:
    """The best of the stock cells up to the number of calls at which one is not matched."""
    missed = [other.nfe for other in stock if corrected[_key(row, other)] >= LEVEL]
    passed = [other for other in stock if other.nfe < min(missed, default=other.nfe + 1)]
    return min(passed, key=lambda other: other.fid, default=None)


def _alike(a: CellRow, b: CellRow) -> bool:
    return a.guidance_scale == b.guidance_scale and a.loras == b.loras


def _key(a: CellRow, b: CellRow) -> tuple[str, str]:
    return a.cell_digest, b.cell_digest


def _keys(pairs: Sequence[tuple[CellRow, CellRow]]) -> list[tuple[str, str]]:
    return [_key(a, b) for a, b in pairs]


def _not_worse(a: CellRow, b: CellRow, margin: float) -> float:
    """The one-sided p-value of a being worse than b by the margin or more."""
    shifted = [loo - margin for loo in a.fid_leave_one_out]
    test = paired_difference(shifted, b.fid_leave_one_out, a.fid - margin, b.fid, a.group_sizes)
    half = test.p_value / 2.0
    return half if test.value < 0.0 else 1.0 - half
