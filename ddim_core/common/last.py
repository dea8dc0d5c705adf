"""The last of what is yielded, without holding the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

Item = TypeVar("Item")


def last_of(items: Iterable[Item]) -> Item:
    """Returns the last item; each is let go when the next one comes, where `*_, last = items`
    would hold all.

    Raises:
        IndexError: If there is none.
    """
    return deque(items, maxlen=1)[0]
