"""A race of cells in, or of the cells of several snapshots; its report out: an HTML file, and
Markdown for Prefect's UI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from ddim_core.common.foreign import Json
from ddim_core.decisions.checkpoints.snapshots import SnapshotRanking
from ddim_core.decisions.race import Outcome, Rules
from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.reports.race_sentences import race_figure, read_outcome, ruling_text
from ddim_core.reports.verdicts.snapshots import (
    by_snapshot,
    picks_text,
    read_snapshots,
    snapshot_curve,
    value_text,
    worse_text,
)
from ddim_core.scores.cell_score import CellScore
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.reports.verdict_page import pictured
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name

TEMPLATE = Path(__file__).with_suffix(".html")
SNAPSHOTS = Path(__file__).with_suffix(".snapshots.html")


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
    ordered = sorted(rows, key=outcome.measure.cost)
    pictures, why_none = pictured([(row, "") for row in ordered], outcome.measure)
    reading = read_outcome(by_place, outcome, rules)
    text = page.html(
        TEMPLATE,
        figures,
        {
            "first": rows[0],
            "identities": page.identities(rows),
            "lines": [
                (row, ruling_text(outcome.rulings[i], by_place, outcome.measure))
                for i, row in by_place.items()
            ],
            "status": [outcome.rulings[i].status for i in by_place],
            "reading": reading,
            "floor": floor,
            "measure": outcome.measure,
            "data": {"lines": {"calls": charts.over_calls(rows, outcome.measure)}, **pictures},
            "why_no_pictures": why_none,
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


@cached_task
def render_snapshots(
    rows: list[CellRow],
    at: list[int],
    found: SnapshotRanking,
    outcome: Outcome | None,
    rules: Rules,
    floor: CellScore | None,
    remarks: list[str],
) -> Report:
    """Draws the curve over training, reads the ranking and renders the page.

    Args:
        rows: The newest row of each cell that has one.
        at: The place of each of them among the cells.
        found: The ranking of the snapshots, their cells, and what fixed settings would pick.
        outcome: What came of the race; None of full grids.
        rules: What was asked of it.
        floor: The score of held-out real images, where there are any.
        remarks: What was left out, for people.
    """
    figures = {"curve": snapshot_curve(rows, found)}
    reading = read_snapshots(dict(zip(at, rows, strict=True)), found, rules, outcome, remarks)
    best = {one.cell_digest: one.name for one in (found.snapshots[i] for i in found.order)}
    by_cell = {row.cell_digest: row for row in rows}
    pictures, why_none = pictured(
        [(by_cell[cell], name) for cell, name in best.items()], found.measure
    )
    text = page.html(SNAPSHOTS, figures, {
        "checkpoints": sorted({(row.checkpoint, row.checkpoint_digest) for row in rows}),
        "first": rows[0], "identities": page.identities(rows),
        "rows": rows, "found": found, "floor": floor,
        "reading": [*reading[len(remarks):], *remarks],
        "data": {"lines": {"course": _course(rows, found)}, **pictures},
        "why_no_pictures": why_none,
        "said": reading[len(remarks)],
        "measure": found.measure, "cell_name": cell_name, "interval": with_interval,
        "value_text": value_text, "worse_text": worse_text, "picks_text": picks_text,
    })  # fmt: skip
    return page.stored(text, figures, reading)


def _course(rows: Sequence[CellRow], found: SnapshotRanking) -> Json:
    """What decides over the snapshots: each at its own best setting, and some fixed settings."""
    history, settings = by_snapshot(rows, found)
    at_best = [
        (f"{one.name}\n{one.setting}\n{found.measure.title} {value_text(found, one)}",
         one.value, one.value_low, one.value_high)
        for one in found.snapshots
    ]  # fmt: skip
    return charts.over_checkpoints(history, settings, found.measure, at_best)


@task(name="publish-snapshots", task_run_name=run_name("publish-snapshots"))
def publish_snapshots(
    name: str, report: Report, rows: list[CellRow], found: SnapshotRanking
) -> str:
    """Puts a rendered report where people look: reports/<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    place = page.publish(name[:12], report)
    lines = [
        f"| {one.name} | {one.setting} | {value_text(found, one)} | "
        f"{worse_text(found, one.behind)} |"
        for one in (found.snapshots[i] for i in found.order)
    ]
    head = f"| snapshot | best setting | {found.measure.title} | worse than the best by |"
    table = "\n".join([head, "|---|---|---|---|", *lines])
    text = "\n\n".join(report.reading)
    page.show("snapshots", f"{text}\n\n{table}\n\nReport: {page.linked(place)}\n")
    return place
