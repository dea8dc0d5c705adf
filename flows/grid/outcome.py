"""What the flows return that fill the table; `ddim` prints it."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.reports.records import FiledVerdict


@dataclass(frozen=True, kw_only=True)
class GridOutcome:
    """What came of a grid.

    Attributes:
        report: Its place; None if no cell has a row.
        cells: Digests of the rows.
        images_drawn: How many were not in the store.
        verdict: Against another checkpoint, if there is one.
        damaged: A sentence for each row of the table that is damaged.
        advice: Sentences on the best cell, its ties and the cell to take.
    """

    report: str | None
    cells: list[str]
    images_drawn: int
    verdict: FiledVerdict | None = None
    damaged: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
