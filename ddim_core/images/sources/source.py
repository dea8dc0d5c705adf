"""What a data set is before its images are read: names, splits, classes, and rows of bytes.

The forms are in `folder` (also of `archives`), `table`, `arrays` and `images.embedded`; `decode`
makes pixels of the bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ddim_core.common.printable import printable

ALL = "all"


CARD_HEAD = 40_000  # bytes


MOST_NAMED = 3  # names in a message


def named(names: Sequence[str]) -> str:
    """Lists the first names of many, each made printable."""
    more = len(names) - MOST_NAMED
    shown = ", ".join(printable(name) for name in names[:MOST_NAMED])
    return shown + (f" and {more} more" if more > 0 else "")


def licence_in(card: bytes) -> str:
    """Returns the licence that a data card (README.md) states (`license:`), or ""."""
    head = card[:CARD_HEAD].decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
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
        name: What a file of it is called, relative; without a suffix where only its bytes tell.
    """

    where: str
    read: Callable[[], bytes]
    label: str | None = None
    caption: str | None = None
    name: str = ""


class Source(Protocol):
    """A data set before its images are read.

    Attributes:
        name: What people call it, one printable line.
        splits: Its parts, besides `all`.
        class_names: Over all splits, in the order of their labels; empty where there are none.
        licence: Under which the images are, where that is known.
        notes: What is left out, and how what is read is understood, in sentences.
    """

    @property
    def name(self) -> str: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def licence(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...

    def content(self) -> str:
        """Identifies the raw content wherever it lies, without decoding it."""

    def rows(self, split: str) -> Iterator[Row]:
        """Yields the images of one split, in an order that the content alone decides."""
