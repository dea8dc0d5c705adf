"""Rows of LoRA files over one base are judged against each other as checkpoints are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ddim_core.decisions.checkpoints.lora_rows import loras_named, rows_of_lora, rows_of_loras
from ddim_core.decisions.checkpoints.verdict import judge, setting_of
from ddim_core.decisions.row import CellRow, cell_name
from tests.core.decisions.test_verdict import grid

EARLY, LATE = ("style-000004.safetensors", "d4"), ("style-000008.safetensors", "d8")
DETAIL = ("detail.safetensors", "dd")


def laid(rows: list[CellRow], *loras: tuple[tuple[str, str], float]) -> list[CellRow]:
    told = json.dumps([[name, digest, scale] for (name, digest), scale in loras])
    named = {"checkpoint": "base", "weights_digest": "base", "loras": told}
    return [replace(row, **named, cell_digest=f"{row.cell_digest}-{told}") for row in rows]


@pytest.fixture(scope="module")
def table() -> list[CellRow]:
    better, worse = grid("base", 0.3, 1, only=2), grid("base", 0.6, 1, only=2)
    return [
        *laid(better, (EARLY, 1.0)), *laid(worse, (LATE, 1.0)), *laid(worse, (LATE, 0.5)),
        *laid(worse, (LATE, 1.0), (DETAIL, 0.5)), *laid(better),
    ]  # fmt: skip


def test_epochs_of_a_lora_are_judged_at_one_setting(table: list[CellRow]) -> None:
    early, late = rows_of_lora(table, "d4"), rows_of_lora(table, "d8")
    assert (len(early), len(late)) == (2, 6)
    found = judge(late, early)
    assert found.call == "worse"
    assert len(found.cells) == 2  # those of scale 1 and no other LoRA
    assert cell_name(found.cells[0].new) == "S = 5, eta = 0 (LoRA 1)"
    assert found.cells[0].new.checkpoint == "style-000008 on base"
    assert judge(early, late).call == "better"


def test_another_lora_over_both_has_to_be_the_same(table: list[CellRow]) -> None:
    both = laid(grid("base", 0.3, 1, only=2), (EARLY, 1.0), (DETAIL, 0.5))
    found = judge(rows_of_lora(table, "d8"), rows_of_lora(both, "d4"))
    assert [cell_name(cell.new) for cell in found.cells] == [
        "S = 5, eta = 0 (LoRA 1, detail 0.5)", "S = 10, eta = 0 (LoRA 1, detail 0.5)",
    ]  # fmt: skip


def test_a_file_is_found_by_its_name_and_told_for_each_file(table: list[CellRow]) -> None:
    assert loras_named(table, "style-000008") == loras_named(table, LATE[0]) == {"d8"}
    assert loras_named(table, "style") == set()
    assert len(rows_of_loras(table, "base")) == 2 + 2 + 2 + 4
    assert rows_of_loras(table, "another") == []


def test_the_name_of_a_file_is_no_part_of_a_setting() -> None:
    rows = grid("base", 0.3, 1, only=1)
    renamed = laid(rows, (("copy.safetensors", "d4"), 1.0))
    assert setting_of(renamed[0]) == setting_of(laid(rows, (EARLY, 1.0))[0])
    assert setting_of(renamed[0]) != setting_of(laid(rows, (LATE, 1.0))[0])
    assert setting_of(renamed[0]) != setting_of(rows[0])
