"""The last of what is yielded, without holding the others; and the next before it is needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def last_of(items: Iterable[Item]) -> Item:
    """Returns the last item; each is let go when the next one comes, where `*_, last = items`
    would hold all.

    Raises:
        IndexError: If there is none.
    """
    return deque(items, maxlen=1)[0]


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yields items, each after the one behind it has been made: what an item begins by itself goes
    on while the one before it is used."""
    coming = iter(items)
    held = list(islice(coming, 1))
    for item in coming:
        yield held.pop()
        held.append(item)
    yield from held
