"""One Parquet or Arrow file in, its table out, unpacked within limits and verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddim_core.sources import printable

MAX_BYTES = 2**36  # unpacked; a Parquet file of a kilobyte can claim any number of them
LEAST_LIMIT, MOST_UNPACKED = 2**28, 100  # bytes, and times the length of a file
PIECE = 2**28  # bytes unpacked at once
ROWS_AT_ONCE = 256
ARROW_STREAM = b"\xff\xff\xff\xff"  # how every such stream begins


def sound(path: Path, read: Callable[[Path], Any]) -> Any:
    """Reads a table by one of the functions below.

    Raises:
        ValueError: If it is damaged, or would unpack to too many bytes.
    """
    try:
        return read(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{printable(path.name)} cannot be read as a table: {reason}") from error


def schema_of(path: Path) -> pa.Schema:
    """The schema of a Parquet or Arrow file."""
    return pq.read_schema(path) if path.suffix.lower() == ".parquet" else table_of(path).schema


def table_of(path: Path) -> pa.Table:
    """The whole table of a Parquet or Arrow file, verified."""
    if path.suffix.lower() == ".parquet":
        claimed = pq.read_metadata(path)
        size = sum(claimed.row_group(i).total_byte_size for i in range(claimed.num_row_groups))
        if size > MAX_BYTES:
            raise ValueError(f"it unpacks to {size} bytes; at most {MAX_BYTES} are read")
        _within_limit(path, _parquet_pieces(path))
        table = pq.read_table(path, page_checksum_verification=True)
    else:
        with path.open("rb") as file:
            streamed = file.read(len(ARROW_STREAM)) == ARROW_STREAM
            file.seek(0)
            reader = (pa.ipc.open_stream if streamed else pa.ipc.open_file)(file)
            batches = _within_limit(path, _arrow_batches(reader))
        table = pa.Table.from_batches(batches, reader.schema)
    table.validate(full=True)
    return table


def _parquet_pieces(path: Path) -> Iterator[int]:
    """The sizes of a Parquet file's rows, unpacked piece by piece: one value may stand for any
    number of rows, a file of 600 bytes for gigabytes, and what it claims counts the value once."""
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        claimed = max((group.total_byte_size for group in groups), default=0)
        rows = max(1, min(ROWS_AT_ONCE, PIECE // max(1, claimed)))
        yield from (batch.nbytes for batch in file.iter_batches(batch_size=rows))


def _arrow_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
    else:
        yield from reader


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
