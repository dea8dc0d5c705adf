"""The table of results: `ddim_core.decisions.row.CellRow` as files, written and read.

Apart from `tasks.cells.table`, which makes the rows: this imports neither Prefect nor torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ddim_core.decisions.row import CellRow
from tasks.storage.columns import columns_of, schema_of
from tasks.storage.row_files import Found, RowFiles

COLUMNS = columns_of(CellRow)
SCHEMA = schema_of(COLUMNS)
CELLS = RowFiles(
    "cells",
    "cell_digest",
    SCHEMA,
    ("checkpoint", "dataset", "n_images", "variance", "eta", "sampler", "steps", "created_at"),
    "the next run of its grid writes it again",
    CellRow,
    ("fid", "fid_inf"),
)


def write_row(row: CellRow) -> str:
    """Writes one row, whole or not at all, in place of an older one of the same cell.

    Returns the file's place. Written from the record each time, so a deleted row comes back.
    """
    return CELLS.write(row)


def read_rows(
    cells: Collection[str] | None = None, alike: Mapping[str, Any] | None = None
) -> Found[CellRow]:
    """Returns the rows written so far, in the order of the grid, and which had to be left out.

    Args:
        cells: Digests of the cells wanted; None takes all.
        alike: Values that a row must have in these columns, None for none.
    """
    return CELLS.read(cells, alike)


def read_table(
    cells: Collection[str] | None = None, alike: Mapping[str, Any] | None = None
) -> list[CellRow]:
    """Returns what `read_rows` does, where nothing may be missing.

    Raises:
        DamagedRowError: If a row is damaged; its grid's next run writes it again.
    """
    return read_rows(cells, alike).whole().rows
