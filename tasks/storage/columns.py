"""A column of a table, said once: its name, what it holds, and what MLflow makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

TEXT, WHOLE, NUMBER, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
NUMBERS, WHOLES, TEXTS = pa.list_(NUMBER), pa.list_(WHOLE), pa.list_(TEXT)
TIMESTEPS, MOMENT = pa.list_(pa.int32()), pa.timestamp("us", tz="UTC")

Role = Literal["kept", "metric", "parameter", "shared"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: As in the Parquet files.
        kind: Of its values; any of them may be null.
        role: In MLflow: a `metric` or a `parameter` of the row's run, or `shared`, a parameter that
            the run above a table's rows has as well; what is `kept` stands in the table alone.
    """

    name: str
    kind: pa.DataType
    role: Role = "kept"


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Returns the schema of a table's files."""
    return pa.schema([(column.name, column.kind) for column in columns])


def names_of(columns: Sequence[Column], *roles: Role) -> tuple[str, ...]:
    """Returns the names of the columns with one of these roles, in their order."""
    return tuple(column.name for column in columns if column.role in roles)
