"""What the pages of a Parquet file claim to unpack to, read off their headers alone.

A file of two kilobytes may hold a page of two gigabytes, or a column of a billion values that are
all the same, whatever its footer says. The headers are Thrift structs in the compact protocol:
https://github.com/apache/parquet-format (PageHeader).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

HEADER = 2**16  # bytes; with statistics of long values
MOST_PAGES = 10**6
MOST_DEPTH = 16
LEAST_VALUE = 4  # bytes that one value takes at least, where it is not a truth
MAGIC, MOST_FOOTER = b"PAR1", 2**24
ROW_GROUPS, COLUMNS, ABOUT = 4, 1, 3
N_COLUMN_VALUES, PACKED_SIZE, DATA_OFFSET, DICTIONARY_OFFSET = 5, 7, 9, 11
PAGE_SIZE, COMPRESSED_SIZE, N_VALUES = 2, 3, 1
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 5, 7, 8
TRUE, FALSE, BYTE, I64, DOUBLE, BINARY, LIST, SET, STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12


@dataclass(frozen=True)
class Claims:
    """What a file's pages would unpack to.

    Attributes:
        n_bytes: Of all pages together.
        largest: Of one page.
        n_values: In all data pages; of lists each element counts.
    """

    n_bytes: int
    largest: int
    n_values: int

    @property
    def n_unpacked(self) -> int:
        """Bytes of the unpacked table at least; values that are all the same have no page's."""
        return max(self.n_bytes, LEAST_VALUE * self.n_values)


def page_claims(file: BinaryIO) -> Claims:
    """Goes from page to page of every column of an open file.

    Raises:
        ValueError: If a header is damaged, or there are absurdly many.
    """
    n_bytes = largest = n_values = n_pages = 0
    for place, end in _columns(file):
        while place < end and n_pages <= MOST_PAGES:
            file.seek(place)
            size, packed, values, length = _page(file.read(HEADER))
            place += length + packed
            n_bytes, n_values, n_pages = n_bytes + size, n_values + values, n_pages + 1
            largest = max(largest, size)
    if n_pages > MOST_PAGES:
        raise ValueError(f"it has more than {MOST_PAGES} pages")
    return Claims(n_bytes, largest, n_values)


def _columns(file: BinaryIO) -> list[tuple[int, int]]:
    """Where each column of each group of rows begins and ends. Read here, since Arrow ends the
    process at some damaged footers."""
    end = file.seek(0, 2)
    file.seek(max(0, end - len(MAGIC) - 4))
    tail = file.read(len(MAGIC) + 4)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= min(MOST_FOOTER, end - len(tail)):
        raise ValueError("it has no footer of a Parquet file, or an absurd one")
    file.seek(end - len(tail) - length)
    found = []
    try:
        for group in _Compact(file.read(length)).struct(0)[ROW_GROUPS]:
            for column in group[COLUMNS]:
                about = column[ABOUT]
                starts = [about[DATA_OFFSET], about.get(DICTIONARY_OFFSET) or about[DATA_OFFSET]]
                if about[N_COLUMN_VALUES] == 0:  # of no rows, and then perhaps with no place
                    starts = [start for start in starts if start] or [len(MAGIC)]
                begin, size = min(starts), about[PACKED_SIZE]
                if not 0 < begin <= begin + size <= end:
                    raise ValueError("a column lies outside of the file")
                found.append((begin, begin + size))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("its footer is damaged") from error
    return found


def _page(data: bytes) -> tuple[int, int, int, int]:
    """Bytes of a page unpacked and packed, its values, and the length of its header."""
    reader = _Compact(data)
    try:
        fields = reader.struct(0)
    except IndexError as error:
        raise ValueError("the header of a page is not whole") from error
    details: Any = next((fields[k] for k in (DATA_PAGE, DATA_PAGE_V2) if k in fields), {})
    size, packed = fields.get(PAGE_SIZE, -1), fields.get(COMPRESSED_SIZE, -1)
    values = details.get(N_VALUES, 0) if isinstance(details, dict) else -1
    if not all(isinstance(n, int) and n >= 0 for n in (size, packed, values)):
        raise ValueError("the header of a page has no sizes")
    return size, packed, values, reader.place


class _Compact:
    """Thrift's compact protocol, as far as a page header has it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > MOST_DEPTH:
            raise ValueError("the header of a page is nested too deep")
        fields: dict[int, Any] = {}
        name = 0
        while head := self._byte():
            name = name + (head >> 4) if head >> 4 else self._signed()
            fields[name] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if BYTE < kind <= I64:
            return self._signed()
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind in (LIST, SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            kind = BYTE if head & 15 in (TRUE, FALSE) else head & 15
            return [self._value(kind, depth + 1) for _ in range(min(count, len(self.data)))]
        lengths = {BYTE: lambda: 1, DOUBLE: lambda: 8, BINARY: self._varint}
        if kind not in lengths:
            raise ValueError(f"the header of a page has a field of kind {kind}")
        length = lengths[kind]()
        self.place += length
        return None

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128 and shift < 70:
            found, shift = found | (byte & 127) << shift, shift + 7
        return found | byte << shift

    def _signed(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
