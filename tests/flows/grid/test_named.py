"""Checkpoints and LoRAs by what people call them, where twins are named."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from flows.grid.named import twins_called
from flows.grid.past_verdicts import verdict_of
from tests.core.decisions.test_lora_rows import laid
from tests.core.decisions.test_verdict import Rows, grid

QUALITIES = {"seed0": 0.30, "seed1": 0.34, "seed2": 0.38, "new": 0.33, "old": 0.31}


@pytest.fixture(scope="module")
def table() -> Rows:
    rows = [row for name, q in QUALITIES.items() for row in grid(name, q, 1, 100, only=2)]
    return [replace(row, checkpoint_digest=f"{row.checkpoint}-digest") for row in rows]


def test_a_pattern_stands_for_all_checkpoints_whose_name_matches(table: Rows) -> None:
    found = twins_called(["seed[01]", "old", "seed2-digest"], table)
    assert [rows[0].checkpoint for rows in found] == ["seed0", "seed1", "old", "seed2"]
    assert all(len(rows) == 2 for rows in found)
    for name in ("nobody", "nobody*"):
        with pytest.raises(ValueError, match=r"no rows of 'nobody.*it has rows of old, new, seed2"):
            twins_called([name], table)
    for rows in (table, []):  # a name that no folder can have, and a table without rows
        with pytest.raises(ValueError, match="the table has no rows"):
            verdict_of(rows, 300 * "n")


def test_an_unknown_name_is_refused_before_anything_slow_is_imported() -> None:
    script = "import sys; from flows.grid.past_verdicts import verdict_of\ntry:\n "
    script += "verdict_of([], 'nobody')\nexcept ValueError:\n print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "flows.grid.named" in done.stdout
    assert not {"torch", "prefect", "mlflow", "matplotlib"} & set(done.stdout.split())


def test_loras_may_be_twins_of_loras_on_one_base(table: Rows) -> None:
    base: Rows = []
    for row in table:
        lora = (f"{row.checkpoint}.safetensors", f"digest-of-{row.checkpoint}")
        base += laid([row], (lora, 1.0))
    found = verdict_of(base, "new", "old", twins=["seed0", "seed1", "seed2.safetensors"])
    assert found.call == "tied"
    assert (
        "3 trainings of one recipe (`seed0 on base`, `seed1 on base`, `seed2 on base`)"
        in (found.sentences[1])
    )
