"""Where pages go: the store, the folder that people look in, and Prefect's artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from ddim_core.common.digest import digest
from tasks.machine.pages import if_server_answers
from tasks.reports.frame.index import write_index
from tasks.reports.frame.shell import html, render
from tasks.storage import places, store
from tasks.storage.artifact import Report

__all__ = ["grid_folder", "html", "linked", "publish", "put", "render", "show", "stored"]


def stored(text: str, figures: Mapping[str, bytes], reading: Sequence[str]) -> Report:
    """Stores a page and its figures (PNG) one by one."""
    stored_figures = {name: store.put(png, "figure") for name, png in figures.items()}
    return Report(store.put(text.encode(), "report"), stored_figures, list(reading))


def publish(folder: str, report: Report) -> str:
    """Puts a stored report below reports/<folder>/, and into the list of all; returns the page's
    place."""
    for name, ref in report.figures.items():
        store.write_whole(places.data_url("reports", folder, f"{name}.png"), store.get(ref))
    return put(folder, store.get(report.page))


def put(folder: str, page: bytes) -> str:
    """Puts a page alone below reports/<folder>/, and into the list of all; returns its place."""
    place = places.data_url("reports", folder, "index.html")
    store.write_whole(place, page)
    write_index()
    return place


def grid_folder(cells: Iterable[str]) -> str:
    """Names the folder of a grid's page by the digests of all its cells."""
    return digest(sorted(cells))[:12]


def linked(place: str) -> str:
    """Returns a page's place in Markdown, with a link where `make serve` shows reports."""
    served = os.environ.get("DDIM_REPORTS_URL")
    told = f"`{place}`"
    below = "/".join(place.rsplit("/", 2)[1:])
    if not served or not places.is_local():
        return told
    return f"{told} ([open it]({served}/{below}), for Prefect's password)"


def show(key: str, what: str | list[dict[str, Any]]) -> None:
    """Shows Markdown, or the lines of a table, as a Prefect artifact, where the server answers."""
    with if_server_answers():
        if isinstance(what, str):
            create_markdown_artifact(what, key=key)
        else:
            create_table_artifact(what, key=key)
