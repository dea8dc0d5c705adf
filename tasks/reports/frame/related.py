"""Links between the pages of one subject: each leads to what was said of the same cells, checkpoint
or LoRA, in both directions.

A page says in its head of what kind it is and, as `identities`, the digests of what it is about. Of
every other kind it leads to the page that shares most of them with it, of several to the newest. A
page that is put leads there at once, and the pages that lead to it from then on are written anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from markupsafe import escape

from ddim_core.decisions.row import CellRow, loras_of
from tasks.reports.frame.index import Listed
from tasks.storage import places, store

START, END = b"<!-- related -->", b"<!-- end of related -->"  # escaped text of data cannot be it
DIGITS = 12  # of a digest; a page of 100 checkpoints names some thousand
Rows = Iterable[CellRow]


def identities(rows: Rows, others: Iterable[str] = ()) -> list[str]:
    """Returns by what a page is linked: beginnings of the digests of cells, of their checkpoints
    and LoRAs, and of `others`."""
    found = dict.fromkeys(others)
    for row in rows:
        laid = [lora.digest for lora in loras_of(row)]
        found |= dict.fromkeys([row.cell_digest, row.weights_digest, row.checkpoint_digest, *laid])
    return list(dict.fromkeys(digest[:DIGITS] for digest in found if digest))


def link(folder: str, reports: Sequence[Listed]) -> None:
    """Puts the links into a page that was just written, and into those that lead to it now.

    Args:
        folder: The page's.
        reports: All, the newest first.
    """
    for new in (one for one in reports if one.folder == folder):
        _write(new, related(new, reports))
        for other in (one for one in reports if one.identities & new.identities):
            found = related(other, reports)
            if new in found:
                _write(other, found)


def related(page: Listed, reports: Sequence[Listed]) -> list[Listed]:
    """Returns the page of every other kind that shares most with a page, by kind.

    Args:
        page: Of these.
        reports: The newest first.
    """
    best: dict[str, tuple[int, Listed]] = {}
    for other in reports:
        shared = len(page.identities & other.identities)
        if other.kind != page.kind and shared > best.get(other.kind, (0, other))[0]:
            best[other.kind] = shared, other
    return [best[kind][1] for kind in sorted(best)]


def _write(page: Listed, found: Sequence[Listed]) -> None:
    """Puts the links in; a page that is gone, or that is another person's alone, stays as it is."""
    try:
        text = store.read(page.place)
        anew = _with_links(text, found)
        if anew != text:
            store.write_whole(page.place, anew)
            if places.is_local():
                os.utime(page.place, (page.written.timestamp(),) * 2)
    except (OSError, store.StoreError):
        return


def _with_links(text: bytes, found: Sequence[Listed]) -> bytes:
    """The page with these links and no others between its marks; one of before has none."""
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not end:
        return text
    links = ""
    for one in found:
        address = f'href="../{quote(one.folder)}/index.html"'
        if address.encode() not in head + tail:  # where the page leads of itself
            kind = escape(one.kind[:1].upper() + one.kind[1:])
            links += f'<a {address} title="{escape(one.title)}">{kind}</a>'
    return head + start + links.encode() + end + tail
