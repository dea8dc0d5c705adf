"""Which lists of timesteps stand in the table: those of the checkpoint that was scored last with
any, be they tuned or given by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddim_core.decisions.row import CellRow


@dataclass(frozen=True)
class ListsBefore:
    """Samplers with their lists, as a grid is asked for them; none where no checkpoint has any.

    Attributes:
        checkpoint: The one that they were scored on.
        lists: By the time of their rows, the oldest first.
    """

    checkpoint: str
    lists: tuple[str, ...]


def lists_before(rows: Sequence[CellRow], weights: str) -> ListsBefore:
    """Returns the lists of another checkpoint than this whose rows are the newest.

    Args:
        rows: Of the table.
        weights: Content digest of the checkpoint at hand.
    """
    others = [row for row in rows if row.weights_digest != weights and _lists(row)]
    if not others:
        return ListsBefore("", ())
    others.sort(key=lambda row: str(row.created_at))
    its = [row for row in others if row.weights_digest == others[-1].weights_digest]
    lists = dict.fromkeys(str(row.sampler) for row in its)
    return ListsBefore(others[-1].checkpoint, tuple(lists))


def _lists(row: CellRow) -> bool:
    return "[" in (row.sampler or "")
