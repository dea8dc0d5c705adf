"""Templates and values in, pages out, and where they go: the one place that escapes HTML."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from tasks.machine.pages import if_server_answers
from tasks.storage import places, store
from tasks.storage.artifact import Report

MARKDOWN = ".md.html"  # model cards: Markdown, where nothing is escaped
TEMPLATES = Environment(
    loader=FunctionLoader(lambda place: Path(place).read_text(encoding="utf-8")),
    autoescape=lambda place: place is None or not place.endswith(MARKDOWN),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: Path, values: Mapping[str, Any]) -> str:
    """Fills a template. In HTML every value is escaped; a value that is missing is an error."""
    return TEMPLATES.get_template(str(template)).render(values)


def html(template: Path, figures: Mapping[str, bytes], values: Mapping[str, Any]) -> str:
    """Fills a page that opens from disk: its `figures` stand in it, as base64 by name."""
    inlined = {name: base64.b64encode(data).decode() for name, data in figures.items()}
    return render(template, {**values, "figures": inlined})


def stored(text: str, figures: Mapping[str, bytes], reading: Sequence[str]) -> Report:
    """Stores a page and its figures (PNG) one by one."""
    stored_figures = {name: store.put(png, "figure") for name, png in figures.items()}
    return Report(store.put(text.encode(), "report"), stored_figures, list(reading))


def publish(folder: str, report: Report) -> str:
    """Puts a stored report below reports/<folder>/; returns the page's place."""
    files = {"index.html": report.page}
    files |= {f"{name}.png": ref for name, ref in report.figures.items()}
    for name, ref in files.items():
        store.write_whole(places.data_url("reports", folder, name), store.get(ref))
    return places.data_url("reports", folder, "index.html")


def show(key: str, what: str | list[dict[str, Any]]) -> None:
    """Shows Markdown, or the lines of a table, as a Prefect artifact, where the server answers."""
    with if_server_answers():
        if isinstance(what, str):
            create_markdown_artifact(what, key=key)
        else:
            create_table_artifact(what, key=key)
