"""A LoRA's grid is compared with the LoRA that was scored before it on the same base."""

from __future__ import annotations

from dataclasses import replace

from ddim_core.decisions.checkpoints.lora_rows import rows_of_lora, rows_of_loras
from tasks.reports.verdict import previous
from tests.core.decisions.test_lora_rows import EARLY, LATE, laid
from tests.core.decisions.test_verdict import grid


def test_the_lora_scored_before_on_the_same_base_is_the_previous_one() -> None:
    rows = grid("base", 0.3, 1, only=2)
    early, late = (
        [replace(row, created_at=f"2026-01-0{day}T00:00:00") for row in laid(rows, (lora, scale))]
        for day, lora, scale in ((2, EARLY, 1.0), (3, LATE, 1.0))
    )
    elsewhere = [replace(row, weights_digest="other", loras=early[0].loras) for row in late]
    table = [*early, *late, *elsewhere]
    found = previous(rows_of_lora(late, "d8"), rows_of_loras(table, "base"))
    assert {row.checkpoint for row in found} == {"style-000004 on base"}
    assert previous(rows_of_lora(early, "d4"), rows_of_loras(table, "base")) == []
