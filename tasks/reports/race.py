"""A race of cells in, its report out: an HTML file, and Markdown for Prefect's UI."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from ddim_core.decisions.allocation import Outcome, Rules
from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.reports.race_sentences import race_figure, read_outcome, ruling_text
from ddim_core.scores.cell_score import CellScore
from tasks.reports import page
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name

TEMPLATE = Path(__file__).with_suffix(".html")


@cached_task
def render_allocation(
    rows: list[CellRow], at: list[int], outcome: Outcome, rules: Rules, floor: CellScore | None
) -> Report:
    """Draws the figure, reads the outcome and renders the page.

    Args:
        rows: The newest row of each cell that has one.
        at: The place of each of them among the cells.
        outcome: What came of the race.
        rules: What was asked of it.
        floor: The score of held-out real images, where there are any.
    """
    by_place = dict(zip(at, rows, strict=True))
    figures = {"race": race_figure(by_place, outcome)}
    reading = read_outcome(by_place, outcome, rules)
    text = page.html(
        TEMPLATE,
        figures,
        {
            "first": rows[0],
            "lines": [
                (row, ruling_text(outcome.rulings[i], by_place, outcome.measure))
                for i, row in by_place.items()
            ],
            "status": [outcome.rulings[i].status for i in by_place],
            "reading": reading,
            "floor": floor,
            "measure": outcome.measure,
            "cell_name": cell_name,
            "interval": with_interval,
        },
    )
    return page.stored(text, figures, reading)


@task(name="publish-allocation", task_run_name=run_name("publish-allocation"))
def publish_allocation(name: str, report: Report, rows: list[CellRow]) -> str:
    """Puts a rendered report where people look: reports/<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    place = page.publish(name[:12], report)
    lines = [
        f"| {cell_name(row)} | {row.n_images} | "
        f"{with_interval(row.fid_inf, row.fid_inf_low, row.fid_inf_high)} |"
        for row in rows
    ]
    table = "| cell | images | FID_inf |\n|---|---|---|\n" + "\n".join(lines)
    text = "\n\n".join(report.reading)
    page.show("until-decided", f"{text}\n\n{table}\n\nReport: {page.linked(place)}\n")
    return place
