"""What a grid answers, first of all: which setting to ship, how sure that is, and what it costs;
then what these images leave open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddim_core.decisions.best import Ranking, Standing
from ddim_core.decisions.measure import Measure
from ddim_core.decisions.row import CellRow, cell_name

NAMED = 8  # open cells that are named; of more the others are counted


@dataclass(frozen=True)
class Answer:
    """A grid's answer in sentences of plain text.

    Attributes:
        headline: What to ship, or why nothing yet.
        sure: How sure that is; the score with its interval.
        cost: What it costs to draw with; empty where nothing is known.
        cell: The row to ship; None if none.
        undecided: What is not known, cell by cell, and how many images a cell would decide it.
        settled_by: How many images a cell would decide all of it, in words; empty if nothing is.
    """

    headline: str
    sure: str
    cost: str = ""
    cell: CellRow | None = None
    undecided: tuple[str, ...] = ()
    settled_by: str = ""

    @property
    def sentence(self) -> str:
        """What to ship, how sure that is, and what it costs, in one line."""
        return " ".join(part for part in (self.headline, self.sure, self.cost) if part)


def answer(rows: Sequence[CellRow], ranking: Ranking | None, measure: Measure) -> Answer:
    """Says what a grid says to do.

    Args:
        rows: Of a grid, at least one; each with a value of what decides.
        ranking: The rows beside the best of them; None with too few images for intervals.
        measure: What decides.
    """
    if ranking is None:
        lead = min(rows, key=measure.cost)
        return Answer(
            "Nothing is decided: there are too few images for intervals.",
            f"The {measure.extreme} {measure.title} is {measure.shown(lead)} at {cell_name(lead)}, "
            f"N = {lead.n_images}; without intervals no difference is claimed.",
        )
    take, best = ranking.recommended, ranking.best
    if len(rows) == 1:
        return Answer(
            f"There is one cell, and nothing to choose: {cell_name(best.row)}.",
            _score(best.row, measure) + ".", _cost(best.row), best.row,
        )  # fmt: skip
    undecided, settled = _open(ranking)
    if take is None:
        best_known = ", ".join((cell_name(best.row), _score(best.row, measure)))
        return Answer(
            "Nothing is proven good enough to ship yet.",
            f"The {measure.extreme} {measure.title} is that of {best_known}; but it is not shown "
            f"to be within {_margin(ranking)} of the best.",
            f"That cell: {_cost(best.row)}",
            undecided=undecided, settled_by=settled,
        )  # fmt: skip
    standing = next(found for found in ranking.standings if found.row is take)
    return Answer(
        f"Ship {cell_name(take)}.",
        f"{_score(take, measure)}. {_sure(standing, ranking)}",
        _cost(take), take, undecided, settled,
    )  # fmt: skip


def _score(row: CellRow, measure: Measure) -> str:
    return f"{measure.title} {measure.shown(row)} at N = {row.n_images} images"


def _sure(standing: Standing, ranking: Ranking) -> str:
    """How far below the best the cell to ship may lie."""
    number = ranking.measure.number
    if standing.high <= 0.0:
        said = "It is shown that no other cell is better (95 %, all cells together)"
    else:
        said = (
            f"With 95 % confidence, for all cells together, it is at most {number(standing.high)} "
            "worse than the best cell, whichever that is"
        )
    few = len(ranking.within)
    cheapest = f" It is the cheapest of {few} cells of which that is shown." if few > 1 else ""
    return f"{said}; up to {_margin(ranking)} does not count.{cheapest}"


def _margin(ranking: Ranking) -> str:
    return f"{ranking.measure.number(ranking.margin.value)} ({ranking.margin.source})"


def _cost(row: CellRow) -> str:
    rate = row.images_per_second
    speed = f"; {rate:.3g} images a second were drawn by one worker here" if rate else ""
    return f"{row.nfe} network calls an image{speed}."


def _open(ranking: Ranking) -> tuple[tuple[str, ...], str]:
    """What is open, the best estimate first, and how many images a cell would settle it."""
    measure, margin = ranking.measure, ranking.margin.value
    found = [one for one in ranking.standings if one.tied and one.high > margin]
    found.sort(key=lambda one: one.behind)
    said = [
        f"{cell_name(one.row)} ({one.row.nfe} calls) may be as good as the best, or up to "
        f"{measure.number(one.high)} worse"
        + (f": N = {one.decided_at:,} images a cell would tell" if one.decided_at else
           ": no number of images would tell")
        for one in found[:NAMED]
    ]  # fmt: skip
    if len(found) > NAMED:
        said.append(f"and {len(found) - NAMED} cells more, as the table shows")
    wanted = [one.decided_at for one in found if one.decided_at]
    settled = (
        f"N = {max(wanted):,} images a cell would decide "
        f"{'all of it' if len(wanted) == len(found) else 'the rest'}, if the numbers stay."
        if wanted
        else ""
    )
    return tuple(said), settled
