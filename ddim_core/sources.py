"""What a data set is before its images are read: names, splits, classes, and rows of bytes.

The forms are in `embedded_sources`, `folder_source` and `table_source`; `decode` makes pixels of
the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ALL = "all"
CARD_HEAD = 10_000  # characters


def printable(name: str) -> str:
    """Makes a name of any bytes one line that every terminal, table and page can hold."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def licence_of(folder: Path) -> str:
    """Returns the licence that a folder's data card states (`license:` in README.md), or ""."""
    card = folder / "README.md"
    if not card.is_file():
        return ""
    with card.open(encoding="utf-8", errors="replace") as text:
        head = text.read(CARD_HEAD)
    stated = re.search(r"\A---\n(?:.*\n)*?license: *(.+)\n", head)
    return printable(stated[1].strip("\"' ")) if stated else ""


def dataset_name(dataset: str) -> str:
    """Returns what people call a data set: the last part of its place or id."""
    path = Path(dataset)
    return printable(path.resolve().name if path.exists() else dataset.rsplit("/", 1)[-1])


@dataclass(frozen=True)
class Row:
    """One image of a data set, not yet read.

    Attributes:
        where: What names it to people.
        read: Returns its bytes; raises OSError or ValueError where there are none.
        label: The name of its class, where the data set has classes.
        caption: Its text, where the data set has captions.
    """

    where: str
    read: Callable[[], bytes]
    label: str | None = None
    caption: str | None = None


class Source(Protocol):
    """A data set before its images are read.

    Attributes:
        name: What people call it, one printable line.
        splits: Its parts, besides `all`.
        class_names: Over all splits, in the order of their labels; empty where there are none.
        licence: Under which the images are, where that is known.
    """

    @property
    def name(self) -> str: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def licence(self) -> str: ...

    def content(self) -> str:
        """Identifies the raw content wherever it lies, without decoding it."""

    def rows(self, split: str) -> Iterator[Row]:
        """Yields the images of one split, in an order that the content alone decides."""
