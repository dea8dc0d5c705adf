"""Lists that were found before are those of the checkpoint whose listed rows are the newest."""

from __future__ import annotations

from ddim_core.decisions.row import CellRow
from ddim_core.decisions.tuned_lists import ListsBefore, lists_before
from tests.core.decisions.test_compare import row

FIRST, SECOND, THIRD = (f"dpmpp_2m?timesteps=[{n},100]" for n in (900, 800, 700))


def scored(weights: str, sampler: str | None, day: int) -> CellRow:
    found: CellRow = row(
        f"{weights}{day}", 1.0, 0.1, sampler=sampler, weights_digest=weights,
        checkpoint=weights.upper(), created_at=f"2026-01-{day:02d}T00:00:00+00:00",
    )  # fmt: skip
    return found


def test_the_lists_are_those_of_the_checkpoint_that_was_tuned_last_but_this() -> None:
    rows = [
        scored("b", SECOND, 4), scored("b", THIRD, 3), scored("b", SECOND, 5),
        scored("a", FIRST, 2), scored("mine", FIRST, 9), scored("c", "dpmpp_2m", 8),
        scored("d", None, 7),
    ]  # fmt: skip
    assert lists_before(rows, "mine") == ListsBefore("B", (THIRD, SECOND))
    assert lists_before(rows, "b") == ListsBefore("MINE", (FIRST,))
    assert lists_before(rows[:3], "b") == ListsBefore("", ())
