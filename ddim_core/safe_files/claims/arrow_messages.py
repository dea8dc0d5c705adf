"""What the messages of an Arrow stream or file claim to unpack to, read off their heads alone.

A buffer of a kilobyte may unpack to gigabytes. The heads are flatbuffers:
https://github.com/apache/arrow/blob/main/format/Message.fbs (Message, RecordBatch).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"  # how every stream begins
AFTER_MAGIC = 8
# Fields of the tables, by their number.
HEADER_TYPE, HEADER = 1, 2  # of Message
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
DATA = 1  # of DictionaryBatch
BUFFERS, COMPRESSION = 2, 3  # of RecordBatch
BUFFER = struct.Struct("<qq")  # offset and length
LENGTH = struct.Struct("<q")  # before each packed buffer; -1: it is not packed


def at_messages(file: BinaryIO) -> BinaryIO:
    """Returns a file, set to its first message: a stream's start, or behind a file's magic."""
    file.seek(0)
    file.seek(AFTER_MAGIC if file.read(len(FILE_MAGIC)) == FILE_MAGIC else 0)
    return file


def unpacked_sizes(file: BinaryIO) -> Iterator[int]:
    """Yields the bytes that each message's body unpacks to.

    Raises:
        ValueError: If a message is damaged.
    """
    reader = pa.ipc.MessageReader.open_stream(at_messages(file))
    while (message := _next(reader)) is not None:
        try:
            yield _unpacked(message.metadata.to_pybytes(), message.body)
        except (struct.error, IndexError) as error:
            raise ValueError("a message of it is damaged") from error


def _next(reader: Any) -> Any:
    try:
        return reader.read_next_message()
    except StopIteration:
        return None


def _unpacked(head: bytes, body: Any) -> int:
    if body is None:
        return 0
    message = _Table.root(head)
    kind = head[place] if (place := message.field(HEADER_TYPE)) else 0
    batch = message.table(HEADER)
    if kind == DICTIONARY_BATCH and batch:
        batch = batch.table(DATA)
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH) or not batch or not batch.table(COMPRESSION):
        return int(body.size)
    place = batch.follow(BUFFERS)
    (count,) = struct.unpack_from("<I", head, place)
    total = 0
    for i in range(count):
        begin, length = BUFFER.unpack_from(head, place + 4 + BUFFER.size * i)
        if length:
            (claimed,) = LENGTH.unpack_from(body, begin)
            total += length if claimed == -1 else max(0, claimed)
    return total


class _Table:
    """A flatbuffers table: where its fields lie."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place
        (back,) = struct.unpack_from("<i", data, place)
        self.layout = place - back
        if self.layout < 0:
            raise IndexError("a table without a layout")

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, *struct.unpack_from("<I", data, 0))

    def field(self, number: int) -> int:
        """Where a field lies; 0 where the table has none."""
        (size,) = struct.unpack_from("<H", self.data, self.layout)
        if 4 + 2 * number >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self.data, self.layout + 4 + 2 * number)
        return self.place + offset if offset else 0

    def follow(self, number: int) -> int:
        """Where a field leads to."""
        place = self.field(number)
        if not place:
            raise IndexError("a field is missing")
        return place + int(struct.unpack_from("<I", self.data, place)[0])

    def table(self, number: int) -> _Table | None:
        return _Table(self.data, self.follow(number)) if self.field(number) else None
