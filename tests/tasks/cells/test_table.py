"""Rows of the table: read whole or by what they are alike in, and refused where damaged."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ddim_core.decisions.row import CellRow
from tasks.storage import places
from tasks.storage.cell_rows import SCHEMA, read_rows, read_table, write_row
from tasks.storage.store import StoreError
from tests.core.rows import cell_row


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty table of its own."""
    monkeypatch.setattr(places, "data_url", lambda *parts: str(tmp_path.joinpath(*parts)))
    return tmp_path / "results" / "cells"


def row(cell: str, **values: Any) -> CellRow:
    when = "2026-01-01T00:00:00+00:00"
    return cell_row(cell_digest=cell, checkpoint="one", fid=1.5, created_at=when, **values)


def test_a_row_comes_back_as_it_was_written_and_the_grid_s_order_is_kept(folder: Path) -> None:
    rows = [
        row("a", eta=0.5, steps=10, timesteps=[9, 4, 0], group_sizes=[5, 5], clip=True),
        row("b", eta=0.5, steps=20, image_shards=["f" * 64], training_step=3),
        row("c", eta=None),  # without a value comes last
    ]
    for one in reversed(rows):
        write_row(one)
    assert read_table() == rows
    assert list(read_rows().frame["cell_digest"]) == ["a", "b", "c"]


def test_only_rows_that_are_alike_are_returned(folder: Path) -> None:
    for cell, seed in [("a", 0), ("b", 1), ("c", 0)]:
        write_row(row(cell, seed=seed, resize="tf1" if cell == "c" else None))
    assert [one.cell_digest for one in read_table(alike={"seed": 0})] == ["a", "c"]
    assert [one.cell_digest for one in read_table(alike={"seed": 0, "resize": None})] == ["a"]
    assert read_table(alike={"seed": 2}) == []


def test_a_row_of_an_older_version_has_none_for_what_it_did_not_know(folder: Path) -> None:
    place = Path(write_row(row("a", seed=0, resize="tf1")))
    older = pq.read_table(place).drop_columns(["resize"]).select(["fid", "cell_digest", "seed"])
    pq.write_table(older, place)
    (found,) = read_table(alike={"seed": 0, "resize": None})
    assert (found.cell_digest, found.fid) == ("a", 1.5)
    assert found.resize is None
    assert list(read_rows().frame.columns) == SCHEMA.names


@pytest.mark.parametrize("alike", [None, {"seed": 0}])
def test_whatever_byte_is_damaged_a_row_is_read_or_refused_as_damaged(
    folder: Path, alike: dict[str, Any] | None
) -> None:
    place = Path(write_row(row("a", seed=0, resize="tf1")))
    whole = place.read_bytes()
    n_read = 0
    hit = range(4, len(whole), 37)
    for i in hit:
        place.write_bytes(whole[:i] + bytes([whole[i] ^ 0x80]) + whole[i + 1 :])
        with suppress(StoreError):  # and nothing else
            read_table(alike=alike)
            n_read += 1
    assert n_read < len(hit) / 2


def test_a_file_that_holds_no_row_is_refused(folder: Path) -> None:
    place = Path(write_row(row("a", seed=0)))
    buffer = io.BytesIO()
    pq.write_table(SCHEMA.empty_table(), buffer)
    place.write_bytes(buffer.getvalue())
    with pytest.raises(StoreError, match="is damaged"):
        read_table(alike={"seed": 0})
