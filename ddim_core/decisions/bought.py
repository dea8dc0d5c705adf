"""What tuned settings bought: each beside the stock ones, of as many network calls and of more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddim_core.decisions.compare import LEVEL, Comparison, difference
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.holm import holm
from ddim_core.statistics.paired import paired_difference


@dataclass(frozen=True)
class Bought:
    """A tuned cell beside stock cells of its guidance.

    Attributes:
        row: Of the tuned cell.
        rival: The stock cell of the lowest FID among those of as many network calls, or where
            there are none of the next larger number up to twice as many; None where there is none.
        against: The tuned cell minus the rival, corrected for all tests made here: the interval by
            Bonferroni, the adjusted p-value by Holm.
        proven: It is better than every stock cell of the rival's calls, each corrected.
        p_proven: The largest of these corrected p-values; None where there is no such cell.
        matched: The best of the stock cells of more calls that it is proven not to be worse than by
            more than the margin, up to the number of calls at which that fails; None if none.
        p_matched: The largest corrected p-value of those that say so.
    """

    row: CellRow
    rival: CellRow | None
    against: Comparison | None
    proven: bool
    p_proven: float | None
    matched: CellRow | None
    p_matched: float | None


def bought(tuned: Sequence[CellRow], stock: Sequence[CellRow], margin: float) -> list[Bought]:
    """Compares tuned cells with stock ones by paired tests, all corrected together (Holm).

    With the stock cells of as many calls (or, where there are none, of the next larger number
    up to twice as many) the question is whether there is a difference; with all
    of them, whether the tuned cell is worse by more than the margin (one-sided). Since a tuned
    cell has to pass against every stock cell up to a number of calls, the choice of the best among
    them costs nothing of the 5 %.

    Args:
        tuned, stock: Rows of one grid, with intervals.
        margin: A difference of FID that does not count.

    Raises:
        ValueError: If rows cannot be compared, or have no interval.
    """
    alike = [[b for b in stock if are_alike(a, b)] for a in tuned]
    same = [_as_dear(a, others) for a, others in zip(tuned, alike, strict=True)]
    tests = [[difference(a, b) for b in others] for a, others in zip(tuned, same, strict=True)]
    alone = [test.p_value for found in tests for test in found]
    n_two_sided = len(alone)
    alone += [_not_worse(a, b, margin) for a, o in zip(tuned, alike, strict=True) for b in o]
    corrected = holm(alone) if alone else []
    differs, matches = iter(corrected[:n_two_sided]), iter(corrected[n_two_sided:])
    said = []
    for row, others, equals, found in zip(tuned, alike, same, tests, strict=True):
        p_same = [next(differs) for _ in equals]
        p_match = [next(matches) for _ in others]
        rival, against = None, None
        if equals:
            i = min(range(len(equals)), key=lambda j: equals[j].fid)
            rival, test = equals[i], found[i]
            against = Comparison(
                row.cell_digest, rival.cell_digest, test.value, test.se,
                *test.interval(len(alone), len(row.group_sizes)), test.p_value, p_same[i],
            )  # fmt: skip
        better = all(test.value < 0.0 for test in found)
        proven = bool(equals) and better and max(p_same) < LEVEL
        matched, p_matched = _matched(row, others, p_match)
        p_proven = max(p_same, default=None)
        said.append(Bought(row, rival, against, proven, p_proven, matched, p_matched))
    return said


def _matched(
    row: CellRow, stock: Sequence[CellRow], p_values: Sequence[float]
) -> tuple[CellRow | None, float | None]:
    """The best of the stock cells up to the number of calls at which one is not matched."""
    missed = [b.nfe for b, p in zip(stock, p_values, strict=True) if p >= LEVEL]
    end = min(missed, default=max((b.nfe for b in stock), default=0) + 1)
    passed = [(b, p) for b, p in zip(stock, p_values, strict=True) if b.nfe < end]
    dearer = [b for b, _ in passed if b.nfe > row.nfe]
    if not dearer:
        return None, None
    return min(dearer, key=lambda b: b.fid), max(p for _, p in passed)


ALIKE = ("guidance_scale", "guidance_channels", "guide_digest", "loras")


def are_alike(a: CellRow, b: CellRow) -> bool:
    """Tells whether two cells of a grid are asked for the same, but by other samplers."""
    return all(getattr(a, name) == getattr(b, name) for name in ALIKE)


def _as_dear(a: CellRow, stock: Sequence[CellRow]) -> list[CellRow]:
    """Those of as many network calls, or of the next larger number up to twice as many: a run that
    is guided at some of its steps makes a number of calls that no other may make."""
    calls = min((b.nfe for b in stock if a.nfe <= b.nfe <= 2 * a.nfe), default=None)
    return [b for b in stock if b.nfe == calls]


def _not_worse(a: CellRow, b: CellRow, margin: float) -> float:
    """The one-sided p-value of a being worse than b by the margin or more."""
    shifted = [loo - margin for loo in a.fid_leave_one_out]
    test = paired_difference(shifted, b.fid_leave_one_out, a.fid - margin, b.fid, a.group_sizes)
    half = test.p_value / 2.0
    return half if test.value < 0.0 else 1.0 - half
