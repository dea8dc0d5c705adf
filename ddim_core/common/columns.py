"""Rows of tables as records: a field is a column, one line with all that is to be known of it.

    steps: int = column("parameter")

Its annotation says what the column holds; any value may be None in rows of older versions, which
had fewer columns. How tables are written is the tasks' (`tasks.storage.columns`).
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

Role = Literal["kept", "metric", "parameter", "shared"]
Timesteps = Annotated[list[int], "timesteps"]
Moment = Annotated[str, "moment"]  # as ISO text


def column(role: Role) -> Any:
    """A column with a role where runs are tracked: a `metric` or a `parameter` of the row's run, or
    `shared`, a parameter that the run above a table's rows has as well. A column that stands in
    the table alone needs no more than its annotation."""
    return field(metadata={"role": role})
