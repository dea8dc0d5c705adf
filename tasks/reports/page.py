"""Where pages go: the store, the folder that people look in, and Prefect's artifacts."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from markupsafe import escape
from PIL import Image
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from ddim_core.common.digest import digest
from tasks.machine.pages import if_server_answers
from tasks.reports.frame.index import listed, write_index
from tasks.reports.frame.related import identities, link
from tasks.reports.frame.shell import html, render
from tasks.storage import places, store
from tasks.storage.artifact import ArtifactRef, Report

__all__ = [
    "asked_by", "found_at", "grid_folder", "html", "identities", "linked", "publish", "put",
    "render", "show", "show_picture", "stored",
]  # fmt: skip
MADE = "<!-- what made this page -->"  # once in every page; escaped text of data cannot be it
PREVIEW_SIDE = 640  # pixels, at most
SIGNS = re.compile(r"[^\w .,;:=%+()-]")  # which Markdown may read, or a name of the data plant
Told = TypeVar("Told", bound=Report)


def stored(text: str, figures: Mapping[str, bytes], reading: Sequence[str]) -> Report:
    """Stores a page and its figures (PNG) one by one."""
    stored_figures = {name: store.put(png, "figure") for name, png in figures.items()}
    return Report(store.put(text.encode(), "report"), stored_figures, list(reading))


def asked_by(report: Told, command: str) -> Told:
    """Returns a stored report whose page ends with the command that asks for it.

    It is put there last, since what a page shows does not depend on it.
    """
    page = told_at_the_end(store.get(report.page).decode(), command)
    return replace(report, page=store.put(page.encode(), "report"))


def told_at_the_end(page: str, command: str) -> str:
    """Returns a page with the command that asks for it at its end."""
    made = (
        '<section id="made"><h2>The command that made this page</h2>'
        f'<pre data-copy="the command">{escape(command)}</pre></section>'
    )
    return page.replace(MADE, made) if command else page


def publish(folder: str, report: Report) -> str:
    """Puts a stored report below reports/<folder>/, and into the list of all; returns the page's
    place."""
    for name, ref in report.figures.items():
        store.write_whole(places.data_url("reports", folder, f"{name}.png"), store.get(ref))
    return put(folder, store.get(report.page))


def put(folder: str, page: bytes) -> str:
    """Puts a page alone below reports/<folder>/, into the list of all, and into the pages of the
    same subject; returns its place."""
    place = places.data_url("reports", folder, "index.html")
    store.write_whole(place, page)
    reports = listed()
    link(folder, reports)
    write_index(reports)
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


def found_at(report: Told, place: str) -> Told:
    """Returns a report that says last where its page is, for MLflow's description of a run."""
    return replace(report, reading=[*report.reading, f"Report: {linked(place)}"])


def show_picture(key: str, picture: ArtifactRef, said: str, alt: str) -> None:
    """Shows a stored PNG, made small, as a Prefect artifact, where the server answers.

    It stands in the artifact itself: a link would ask for the reports' password. The artifact is
    Markdown, since Prefect writes the whole address out below an artifact of the kind image.

    Args:
        key: The artifact's.
        picture: It.
        said: What stands above it; Markdown.
        alt: What is in it, for those who do not see it.
    """
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(store.get(picture))) as image:
        image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        image.convert("RGB").save(buffer, format="webp", quality=80)
    address = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    show(key, f"{said}\n\n![{SIGNS.sub(' ', alt)}]({address})\n")


def show(key: str, what: str | list[dict[str, Any]]) -> None:
    """Shows Markdown, or the lines of a table, as a Prefect artifact, where the server answers."""
    with if_server_answers():
        if isinstance(what, str):
            create_markdown_artifact(what, key=key)
        else:
            create_table_artifact(what, key=key)
