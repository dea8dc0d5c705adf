"""A race of cells in, its report out: an HTML file, and Markdown for Prefect's UI."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from prefect import task
from prefect.artifacts import create_markdown_artifact

from ddim_core.decisions.row import cell_name, with_interval
from ddim_core.reports.race_sentences import race_figure, read_outcome, ruling_text
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name

TEMPLATE = Path(__file__).with_suffix(".html")


@cached_task
def render_allocation(
    rows: list[dict[str, Any]], at: list[int], about: dict[str, Any]
) -> dict[str, Any]:
    """Draws the figure, reads the outcome and renders the page; returns references to them.

    Args:
        rows: The newest row of each cell that has one.
        at: The place of each of them among the cells.
        about: `outcome` and `rules` (`ddim_core.decisions.allocation`) as plain data, and the
            `floor`.
    """
    by_place = dict(zip(at, rows, strict=True))
    outcome, rules = about["outcome"], about["rules"]
    figure = race_figure(by_place, outcome)
    reading = read_outcome(by_place, outcome, rules)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        first=rows[0],
        lines=[(row, ruling_text(outcome["rulings"][i], by_place)) for i, row in by_place.items()],
        status=[outcome["rulings"][i]["status"] for i in by_place],
        reading=reading,
        floor=about["floor"],
        figure=base64.b64encode(figure).decode(),
        cell_name=cell_name,
        interval=with_interval,
    )
    return {
        "page": store.put(page.encode(), "report"),
        "figures": {"race": store.put(figure, "figure")},
        "reading": reading,
    }


@task(name="publish-allocation", task_run_name=run_name("publish-allocation"))
def publish_allocation(name: str, report: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Puts a rendered report where people look: reports/<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    place = places.data_url("reports", name[:12], "index.html")
    store.write_whole(place, store.get(report["page"]))
    figure = places.data_url("reports", name[:12], "race.png")
    store.write_whole(figure, store.get(report["figures"]["race"]))
    lines = [
        f"| {cell_name(row)} | {row['n_images']} | "
        f"{with_interval(row['fid_inf'], row['fid_inf_low'], row['fid_inf_high'])} |"
        for row in rows
    ]
    table = "| cell | images | FID_inf |\n|---|---|---|\n" + "\n".join(lines)
    text = "\n\n".join(report["reading"])
    create_markdown_artifact(f"{text}\n\n{table}\n\nReport: `{place}`\n", key="until-decided")
    return place
