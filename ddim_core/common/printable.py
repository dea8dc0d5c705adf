"""Names of any bytes as one line that every terminal, table and page can hold."""

from __future__ import annotations


def printable(name: str) -> str:
    """Makes a name of any bytes one line that every terminal, table and page can hold."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
