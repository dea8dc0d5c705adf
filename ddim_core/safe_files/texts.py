"""Text out of other people's files: UTF-8, a byte order mark or none, lines that end in `\\n`.

A file is held as bytes and its lines are made text one at a time: one emoji makes four bytes of
every character of a text that it stands in.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable, Iterator

BOM = "\ufeff"
MOST_LINES, MOST_LINE = 2_000_000, 2**20
MOST_HELD = 2**28  # bytes of memory that texts take together
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
ROW = re.compile(r"[^\r]*\r\n?|[^\r]+")


def text_of(data: bytes, name: str) -> str:
    """Returns the text of a file's bytes; a byte order mark is no part of it.

    Raises:
        ValueError: If it is not UTF-8; UTF-16 and Latin-1 are never guessed.
    """
    _require_narrow(data, name)
    return _decoded(data, name, 0).lstrip(BOM)


def lines_of(data: bytes, name: str) -> Iterator[str]:
    r"""Yields the lines of a file's bytes, split at `\n`, or `\r\n`, alone: U+2028, U+0085, `\x0b`
    and their like are text. A byte order mark before a line, which joined files have, is no part
    of it.

    Raises:
        ValueError: As `text_of`; if lines end in `\r` alone: they would be one; or if they are too
            many, or one too long.
    """
    if b"\n" not in data and b"\r" in data.rstrip(b"\r"):
        raise ValueError(f"{name} ends its lines in a carriage return alone; save it with \\n")
    for line in _lines(data, name):
        yield line.removesuffix("\n").removesuffix("\r").lstrip(BOM)


def rows_of(data: bytes, name: str) -> Iterator[str]:
    r"""Yields the lines of a file's bytes with their ends, split at `\n`, `\r\n` and `\r`, as CSV
    has them; raises as `lines_of`."""
    for number, line in enumerate(_lines(data, name)):
        yield from ROW.findall(line if number else line.lstrip(BOM))


def bounded(texts: Iterable[str], name: str) -> Iterator[str]:
    """Yields texts that are going to be kept.

    Raises:
        ValueError: As soon as they take too much memory together.
    """
    size = 0
    for text in texts:
        size += sys.getsizeof(text)
        if size > MOST_HELD:
            raise ValueError(f"{name} holds over {MOST_HELD} bytes of texts; that is too many")
        yield text


def _lines(data: bytes, name: str) -> Iterator[str]:
    _require_narrow(data, name)
    if (n_lines := data.count(b"\n")) > MOST_LINES:
        raise ValueError(f"{name} has {n_lines} lines; at most {MOST_LINES} are read")
    start = 0
    while start < len(data):
        end = data.find(b"\n", start) + 1 or len(data)
        # A character has up to four bytes.
        long = end - start - 2 > 4 * MOST_LINE
        line = "" if long else _decoded(data[start:end], name, start)
        if long or len(line.rstrip("\r\n")) > MOST_LINE:
            raise ValueError(
                f"{name} has a line of {len(line) or end - start} characters; at most {MOST_LINE} "
                "are read"
            )
        yield line
        start = end


def _require_narrow(data: bytes, name: str) -> None:
    if data.startswith(WIDE_MARKS) or b"\0" in data:
        raise ValueError(f"{name} is no UTF-8 text but UTF-16 or binary; save it as UTF-8")


def _decoded(data: bytes, name: str, start: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is no UTF-8 text (byte {data[error.start]:#04x} at {start + error.start}, as "
            "in Latin-1 or Windows-1252); save it as UTF-8"
        ) from error
