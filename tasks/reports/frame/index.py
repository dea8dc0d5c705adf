"""The page that lists all reports of a DDIM_DATA, and links to each: reports/index.html."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from ddim_core.common.plain_files import open_regular
from tasks.reports.frame.shell import html
from tasks.storage import places, store

TEMPLATE = Path(__file__).with_suffix(".html")
HEAD = 20_000  # bytes, within which a page says its title
KINDS = {"verdict": "verdict", "curve": "checkpoints", "lora": "LoRA", "paper": "paper",
         "points": "swiss roll", "tune": "tuning"}  # fmt: skip


@dataclass(frozen=True)
class Listed:
    """A report.

    Attributes:
        folder: Below reports/.
        kind: In words.
        title, answer: As its page says them.
        written: When, in UTC.
    """

    folder: str
    kind: str
    title: str
    answer: str
    written: str


def index_places() -> list[str]:
    """Where the list lies; nowhere before a report was written that is in it."""
    there = "index.html" in store.names_below(places.data_url("reports"))
    return [places.data_url("reports", "index.html")] if there else []


def write_index() -> str:
    """Writes the list anew; returns its place."""
    place = places.data_url("reports", "index.html")
    store.write_whole(place, html(TEMPLATE, {}, {"reports": listed()}).encode())
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
        name = page.rsplit("/", 2)[1]
        # What has no prefix is a grid, or the race of one.
        kind = KINDS.get(name.partition("-")[0], "grid") if "-" in name else "grid"
        found.append((written, Listed(name, kind, head.title or name, head.answer, _said(written))))
    return [report for _, report in sorted(found, key=lambda one: one[0], reverse=True)]


def _said(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


class _Head(HTMLParser):
    """A page's title and description."""

    def __init__(self) -> None:
        super().__init__()
        self.title, self.answer, self._in_title = "", "", False

    @classmethod
    def of(cls, text: str) -> _Head:
        found = cls()
        found.feed(re.split("<style", text, maxsplit=1)[0])
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self._in_title = tag == "title"
        if tag == "meta" and said.get("name") == "description":
            self.answer = said.get("content") or ""

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
