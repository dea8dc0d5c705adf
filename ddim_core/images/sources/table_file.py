"""One Parquet or Arrow file read whole, unless it unpacks to more than its length justifies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddim_core.common.plain_files import open_regular
from ddim_core.common.printable import printable
from ddim_core.safe_files.claims.arrow_messages import at_messages, unpacked_sizes
from ddim_core.safe_files.claims.parquet_pages import page_claims

ROWS_AT_ONCE = 256
MAX_BYTES = 2**36  # unpacked; a Parquet file of a kilobyte can claim any number of them
LEAST_LIMIT, MOST_UNPACKED = 2**28, 100  # bytes, and times the length of a file
LEAST_ROWS = 100_000  # more need a byte each: a kilobyte may stand for millions of rows
PIECE = 2**28  # bytes unpacked at once


def sound(path: Path, read: Callable[[Path], Any]) -> Any:
    """Reads a table; raises ValueError, with the file's name, if it is damaged or lies."""
    try:
        return read(path)
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{printable(path.name)} cannot be read as a table: {reason}") from error


def schema_of(path: Path) -> pa.Schema:
    """Returns the columns of a Parquet or Arrow file."""
    if path.suffix.lower() != ".parquet":
        return table_of(path).schema
    with open_regular(path) as file:
        page_claims(file)  # since Arrow ends the process at some damaged footers
        return pq.read_schema(file)


def table_of(path: Path) -> pa.Table:
    """Returns the whole table of a Parquet or Arrow file, once its claims fit its length."""
    if path.suffix.lower() == ".parquet":
        claimed = pq.read_metadata(path)
        size = sum(claimed.row_group(i).total_byte_size for i in range(claimed.num_row_groups))
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size} bytes; at most {MAX_BYTES} are read")
        with open_regular(path) as file:
            claims = page_claims(file)
        _within_limit(path, iter([claims.n_unpacked]))
        _within_limit(path, _parquet_pieces(path, claims.largest))
        table = pq.read_table(path, page_checksum_verification=True)
    else:
        with open_regular(path) as file:
            _within_limit(path, unpacked_sizes(file))
            # A file's messages are a stream's; its footer may name others than were looked at.
            reader = pa.ipc.open_stream(at_messages(file))
            batches = _within_limit(path, iter(reader))
        table = pa.Table.from_batches(batches, reader.schema)
    if table.num_rows > max(LEAST_ROWS, path.stat().st_size):
        raise ValueError(f"it has {table.num_rows} rows in {path.stat().st_size} bytes")
    table.validate(full=True)
    return table


def _parquet_pieces(path: Path, largest: int) -> Iterator[int]:
    """The sizes of a Parquet file's rows, unpacked piece by piece: one value may stand for any
    number of rows, a file of 600 bytes for gigabytes, and what it claims counts the value once."""
    with pq.ParquetFile(path) as file:
        rows = max(1, min(ROWS_AT_ONCE, PIECE // max(1, largest)))
        yield from (batch.nbytes for batch in file.iter_batches(batch_size=rows))


def _within_limit(path: Path, pieces: Iterator[Any]) -> list[Any]:
    """Takes pieces, or sizes of pieces, until they are too many bytes for the file's length."""
    most = max(LEAST_LIMIT, MOST_UNPACKED * path.stat().st_size)
    taken, size = [], 0
    for piece in pieces:
        size += piece if isinstance(piece, int) else piece.nbytes
        if size > most:
            raise ValueError(
                f"it unpacks to more than {most} bytes from {path.stat().st_size}; at most "
                f"{MOST_UNPACKED} times its length are read"
            )
        taken.append(piece)
    return taken
