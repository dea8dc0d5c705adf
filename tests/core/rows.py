"""Rows of the table for tests: what a test does not name is None; none is guided."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ddim_core.decisions.row import CellRow

NOTHING: dict[str, Any] = dict.fromkeys(field.name for field in fields(CellRow))


def cell_row(**values: Any) -> CellRow:
    return CellRow(**(NOTHING | {"guidance_scale": 1.0} | values))
