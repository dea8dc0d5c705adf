"""A table as a folder of Parquet files, one row each, in which no bit changes unseen.

Each file carries a seal between its last page and its footer: the sha256 of the Parquet file that
it would be without the seal, between two marks. Parquet's readers go by offsets, so pandas,
pyarrow and DuckDB pass over it. Why there, and no column of digests or Parquet's page checksums:
these say nothing of the footer, where one bit renames a column, moves a page or makes a row two,
and a flip in the name of a column of digests would make its row look as if it never had one. The
seal covers every byte, and is checked before any of them is parsed. A single flip hits at most one
of the two marks: what still has one was sealed, and has to be exactly what its seal says.

Files of versions before the seal, and those that another program wrote again, have no mark. They
are read with care, and counted as unverified.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.storage import places, store
from tasks.storage.columns import optional_of, required_of

if TYPE_CHECKING:
    import pandas as pd

MARK = b"\xffddim row sha256\xff"  # 0xff is no byte of UTF-8: no text in a row can hold it
SEAL_LENGTH = 2 * len(MARK) + 64
ENDING = ".parquet"
HIDDEN = (".", "_")  # what readers of a folder pass over
MOST_TEXT = 2**16  # characters of a value
MOST_BYTES = 2**24  # of a file, and of its columns unpacked
# What comes of bytes that are no row: without a seal also names that are no UTF-8, and times out
# of range.
UNREADABLE = (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError, TypeError)


R = TypeVar("R")


class DamagedRowError(store.StoreError):
    """A file of the table is not the row that its name says; the message says what would help."""


@dataclass(frozen=True)
class Found(Generic[R]):
    """What a table holds.

    Attributes:
        table: The rows that are whole, in no order.
        damaged: A sentence for each file that is left out: which, why, and what to do.
        unverified: How many of the rows have no seal.
        order: The columns that sort them.
        record: What a row is.
    """

    table: pa.Table
    damaged: tuple[str, ...]
    unverified: int
    order: tuple[str, ...]
    record: type[R]

    @cached_property
    def rows(self) -> list[R]:
        """The rows in their order, times as ISO text; those without a value come last."""
        found = [self.record(**_texts(row)) for row in self.table.to_pylist()]
        return sorted(found, key=self._place)

    def _place(self, row: R) -> list[tuple[bool, Any]]:
        values = [getattr(row, name) for name in self.order]
        return [(value is None, value) for value in values]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows in the same order, for programs."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame.sort_values(list(self.order), ignore_index=True)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said wherever the rows are shown: how many are taken unverified, and how
        many are left out."""
        told, n = [], len(self.damaged)
        if self.unverified:
            told.append(
                f"{self.unverified} of {self.table.num_rows} rows carry no seal (an older version "
                "or another program wrote them): they are taken unverified"
            )
        if n:
            told.append(f"{n} row{'s are' if n > 1 else ' is'} damaged and left out")
        return tuple(told)

    def whole(self) -> Self:
        """Returns itself.

        Raises:
            DamagedRowError: If a file had to be left out.
        """
        if self.damaged:
            raise DamagedRowError("; ".join(self.damaged))
        return self


@dataclass(frozen=True)
class RowFiles(Generic[R]):
    """A table below DDIM_DATA/results.

    Attributes:
        name: Of its folder.
        identity: The column whose value is the name of a row's file.
        schema: Its columns; rows of older versions have fewer.
        order: The columns that sort it.
        remedy: What to do about a damaged file.
        record: What a row is.
        spans: Columns with an interval around them, NAME_low and NAME_high.
    """

    name: str
    identity: str
    schema: pa.Schema
    order: tuple[str, ...]
    remedy: str
    record: type[R]
    spans: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return places.data_url("results", self.name)

    @cached_property
    def _required(self) -> frozenset[str]:
        sorting = [name for name in self.order if name not in optional_of(self.record)]
        return required_of(self.record) | {self.identity, *sorting, *self.spans[:1]}

    def write(self, row: Any) -> str:
        """Writes a row, whole or not at all, in place of an older one; returns the file's place."""
        values = row if isinstance(row, Mapping) else vars(row)
        return write_sealed(f"{self.folder}/{values[self.identity]}{ENDING}", [values], self.schema)

    def names(self) -> list[str]:
        """Returns the identities of which there are files, in order."""
        files = (name for name in store.names_below(self.folder) if not name.startswith(HIDDEN))
        return sorted(name.removesuffix(ENDING) for name in files if name.endswith(ENDING))

    def read(
        self, names: Collection[str] | None = None, alike: Mapping[str, Any] | None = None
    ) -> Found[R]:
        """Returns the rows written so far.

        Args:
            names: Identities of the rows wanted; None takes all.
            alike: Values that a row must have in these columns, None for none.
        """
        tables, damaged, unverified = [], [], 0
        for name in self.names():
            if names is not None and name not in names:
                continue
            try:
                table, sealed = self.row(name, alike)
            except DamagedRowError as error:
                damaged.append(str(error))
                continue
            if table is not None:
                tables.append(table)
                unverified += not sealed
        table = pa.concat_tables(tables) if tables else self.schema.empty_table()
        return Found(table, tuple(damaged), unverified, self.order, self.record)

    def row(
        self, name: str, alike: Mapping[str, Any] | None = None
    ) -> tuple[pa.Table | None, bool]:
        """Returns a row, None if it is not alike, and whether it is verified.

        Raises:
            DamagedRowError: If its file is not that row.
            StoreError: If an object store does not answer.
        """
        url = f"{self.folder}/{name}{ENDING}"
        try:
            return self.parsed(store.read_regular(url, MOST_BYTES), name, alike)
        except UNREADABLE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DamagedRowError(
                f"the row in {url} is damaged and left out: {reason}; delete it, and {self.remedy}"
            ) from error

    def parsed(
        self, content: bytes, name: str, alike: Mapping[str, Any] | None = None
    ) -> tuple[pa.Table | None, bool]:
        """Returns the row in a file's bytes, None if it is not alike, and whether it is verified.

        Raises:
            UNREADABLE: If they are not that row.
        """
        sealed = is_sealed(content)
        file = pq.ParquetFile(pa.BufferReader(content))
        if file.metadata.num_rows != 1:
            raise ValueError(f"it holds {file.metadata.num_rows} rows, and must hold one")
        if not sealed:
            _require_small(file.metadata)
        if self.identity not in file.schema_arrow.names:
            raise ValueError(f"it is no row of this table, it has no column {self.identity}")
        if alike:
            columns = [self.identity, *(name for name in alike if name != self.identity)]
            (found,) = file.read(columns=columns, use_threads=False).to_pylist()
            if any(found.get(column) != value for column, value in alike.items()):
                _require_name(found[self.identity], name)
                return None, sealed
        if file.schema_arrow.equals(self.schema):  # twice as fast
            table = file.read(use_threads=False)
        else:
            table = pq.read_table(pa.BufferReader(content), schema=self.schema)
        if not sealed:
            table.validate(full=True)
            (row,) = table.to_pylist()  # finds what no Python value can hold
            _require_name(row[self.identity], name)
            self._require_sane(row, file.schema_arrow.names)
        _require_name(table.column(self.identity)[0].as_py(), name)
        return table, sealed

    def _require_sane(self, row: Mapping[str, Any], written: Collection[str]) -> None:
        """Refuses what no version wrote; only of a row that has no seal to vouch for it. Columns
        that its version did not have yet are not among the `written`."""
        for name in self._required & set(written):
            if row[name] is None or row[name] != row[name]:
                raise ValueError(f"it has no {name}")
        for name in self.order:
            value = row.get(name)
            if isinstance(value, int | float) and not 0 <= value < float("inf"):
                raise ValueError(f"its {name} is {value}")
        for name in self.spans:
            value, low, high = (row.get(name + end) for end in ("", "_low", "_high"))
            if value is None or low is None or high is None:
                continue
            if not low <= value <= high:
                raise ValueError(f"its {name} of {value:g} is not within [{low:g}, {high:g}]")
        for name, value in row.items():
            if isinstance(value, str) and (len(value) > MOST_TEXT or not value.isprintable()):
                raise ValueError(f"its {name} is no line of text")


def write_sealed(url: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> str:
    """Writes rows as one sealed Parquet file, whole or not at all; returns its place."""
    stamped = [{**row, "created_at": _instant(row["created_at"])} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(stamped, schema=schema), buffer)
    store.write_whole(url, seal(buffer.getvalue()))
    return url


def seal(parquet: bytes) -> bytes:
    """Puts a digest of a Parquet file between its last page and its footer."""
    footer = _footer(parquet)
    digest = hashlib.sha256(parquet).hexdigest().encode()
    return b"".join([parquet[:footer], MARK, digest, MARK, parquet[footer:]])


def is_sealed(content: bytes) -> bool:
    """Tells whether a file carries the seal that fits it; False if it never had one.

    Raises:
        ValueError: If it had one, and has changed since.
    """
    footer = _footer(content)
    start = max(0, footer - SEAL_LENGTH)
    digest = hashlib.sha256(content[:start])
    digest.update(content[footer:])
    if content[start:footer] == b"".join([MARK, digest.hexdigest().encode(), MARK]):
        return True
    if MARK in content:
        raise ValueError("its bytes are not what was written")
    return False


def _footer(content: bytes) -> int:
    """Where the footer begins, by its length, which stands before the last four bytes."""
    return max(0, len(content) - 8 - int.from_bytes(content[-8:-4], "little"))


def _instant(time: str | datetime) -> datetime:
    return datetime.fromisoformat(time) if isinstance(time, str) else time


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in row.items()}


def _require_small(metadata: pq.FileMetaData) -> None:
    """Refuses a file that claims to unpack to more than a row. Its columns are not looked at here:
    of some damaged files pyarrow's metadata of a column ends the whole process."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if size > MOST_BYTES:
        raise ValueError(f"it claims {size} bytes; a row has at most {MOST_BYTES}")


def _require_name(identity: Any, name: str) -> None:
    if identity != name:
        raise ValueError(f"it holds the row {str(identity)[:64]!r}, which its name does not say")
