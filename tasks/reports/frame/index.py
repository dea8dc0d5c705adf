"""The page that lists all reports of a DDIM_DATA, and links to each: reports/index.html."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from ddim_core.common.plain_files import open_regular
from tasks.reports.frame.shell import html
from tasks.storage import places, store

TEMPLATE = Path(__file__).with_suffix(".html")
HEAD = 100_000  # bytes, within which a page says what it is about
# Of pages that do not say theirs.
KINDS = {"verdict": "verdict", "curve": "checkpoints", "lora": "LoRA", "paper": "paper",
         "points": "swiss roll", "tune": "tuning"}  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A report.

    Attributes:
        folder: Below reports/.
        kind, title, answer: As its page says them.
        written: When; links that are put into it later do not count, except in an object store.
        identities: Beginnings of the digests of what it is about.
    """

    folder: str
    kind: str
    title: str
    answer: str
    written: datetime
    identities: frozenset[str] = frozenset()

    @property
    def place(self) -> str:
        """Where its page lies."""
        return f"{places.data_url('reports')}/{self.folder}/index.html"


def report_places() -> list[str]:
    """Returns the pages of all reports, oldest first."""
    return [one.place for one in reversed(listed())]


def index_places() -> list[str]:
    """Where the list lies; nowhere before a report was written that is in it."""
    there = "index.html" in store.names_below(places.data_url("reports"))
    return [places.data_url("reports", "index.html")] if there else []


def write_index(reports: Sequence[Listed] | None = None) -> str:
    """Writes the list anew, of these reports or of all that there are; returns its place."""
    place = places.data_url("reports", "index.html")
    found = listed() if reports is None else reports
    store.write_whole(place, html(TEMPLATE, {}, {"reports": found}).encode())
    return place


def listed() -> list[Listed]:
    """Returns all reports, the newest first."""
    filesystem, folder = store.located(places.data_url("reports"))
    found = []
    for page in filesystem.glob(f"{folder}/*/index.html"):
        try:
            with open_regular(Path(page)) if places.is_local() else filesystem.open(page) as file:
                head = _Head.of(file.read(HEAD).decode(errors="replace"))
            written = filesystem.modified(page)
        except OSError:  # gone since it was listed, or no file
            continue
        name, said = page.rsplit("/", 2)[1], head.said
        found.append(Listed(
            name, said.get("kind") or KINDS.get(name.partition("-")[0], "grid"),
            head.title or name, said.get("description", ""),
            written.astimezone(UTC),
            frozenset(said.get("identities", "").split()),
        ))  # fmt: skip
    return sorted(found, key=lambda one: one.written, reverse=True)


class _Head(HTMLParser):
    """A page's title, and what else it says of itself, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.said, self._in_title = "", dict[str, str](), False

    @classmethod
    def of(cls, text: str) -> _Head:
        found = cls()
        found.feed(re.split("<style", text, maxsplit=1)[0])
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self._in_title = tag == "title"
        if tag == "meta":
            self.said[said.get("name") or ""] = said.get("content") or ""

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
