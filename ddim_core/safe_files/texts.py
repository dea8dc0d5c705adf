"""Text out of other people's files: UTF-8, a byte order mark or none, lines that end in `\\n`."""

from __future__ import annotations

import codecs

BOM = "\ufeff"
MOST_LINES, MOST_LINE = 2_000_000, 2**20
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)


def text_of(data: bytes, name: str) -> str:
    """Returns the text of a file's bytes; a byte order mark is no part of it.

    Raises:
        ValueError: If it is not UTF-8; UTF-16 and Latin-1 are never guessed.
    """
    if data.startswith(WIDE_MARKS) or b"\0" in data:
        raise ValueError(f"{name} is no UTF-8 text but UTF-16 or binary; save it as UTF-8")
    try:
        return data.decode("utf-8").lstrip(BOM)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is no UTF-8 text (byte {data[error.start]:#04x} at {error.start}, as in "
            "Latin-1 or Windows-1252); save it as UTF-8"
        ) from error


def lines_of(text: str, name: str) -> list[str]:
    r"""Splits at `\n`, or `\r\n`, alone: U+2028, U+0085, `\x0b` and their like are text. A byte
    order mark before a line, which joined files have, is no part of it.

    Raises:
        ValueError: If its lines end in `\r` alone: they would be one; or if they are too many, or
            one too long.
    """
    if "\n" not in text and "\r" in text.rstrip("\r"):
        raise ValueError(f"{name} ends its lines in a carriage return alone; save it with \\n")
    if (n_lines := text.count("\n")) > MOST_LINES:
        raise ValueError(f"{name} has {n_lines} lines; at most {MOST_LINES} are read")
    lines = text.split("\n")
    if (longest := max(map(len, lines))) > MOST_LINE:
        raise ValueError(f"{name} has a line of {longest} characters; at most {MOST_LINE} are read")
    return [line.removesuffix("\r").lstrip(BOM) for line in lines]
