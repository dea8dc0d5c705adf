"""What a table's record makes of its columns: the schema of its files, and names by their role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

import pyarrow as pa

from ddim_core.common.columns import Moment, Role, Timesteps

TEXT, WHOLE, NUMBER, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
NUMBERS, WHOLES, TEXTS = pa.list_(NUMBER), pa.list_(WHOLE), pa.list_(TEXT)
TIMESTEPS, MOMENT = pa.list_(pa.int32()), pa.timestamp("us", tz="UTC")
KINDS: Mapping[Any, pa.DataType] = {
    str: TEXT, int: WHOLE, float: NUMBER, bool: TRUTH, list[float]: NUMBERS, list[int]: WHOLES,
    list[str]: TEXTS, Timesteps: TIMESTEPS, Moment: MOMENT,
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column: its name, what it holds, and its role (`ddim_core.common.columns.column`)."""

    name: str
    kind: pa.DataType
    role: Role = "kept"


def columns_of(record: type) -> tuple[Column, ...]:
    """Returns the columns of a record: its fields, in their order."""
    hints = get_type_hints(record, include_extras=True)
    return tuple(
        Column(f.name, KINDS[_bare(hints[f.name])], f.metadata.get("role", "kept"))
        for f in fields(record)
    )


def schema_of(columns: Sequence[Column]) -> pa.Schema:
    """Returns the schema of a table's files."""
    return pa.schema([(column.name, column.kind) for column in columns])


def names_of(columns: Sequence[Column], *roles: Role) -> tuple[str, ...]:
    """Returns the names of the columns with one of these roles, in their order."""
    return tuple(column.name for column in columns if column.role in roles)


def required_of(record: type) -> frozenset[str]:
    """Returns the names of a record's columns that no row is without."""
    hints = get_type_hints(record, include_extras=True)
    return frozenset(name for name, kind in hints.items() if NoneType not in get_args(kind))


def optional_of(record: type) -> frozenset[str]:
    """Returns the names of a record's columns that rows of older versions may be without."""
    hints = get_type_hints(record, include_extras=True)
    return frozenset(name for name, kind in hints.items() if NoneType in get_args(kind))


def _bare(kind: Any) -> Any:
    """`float` of `float | None`."""
    parts = get_args(kind)
    return next(part for part in parts if part is not NoneType) if NoneType in parts else kind
