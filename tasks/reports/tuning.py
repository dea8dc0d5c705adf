"""Tuned settings and the rows that prove them in, their report out."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from ddim_core.decisions.measure import FID
from ddim_core.decisions.row import CellRow, with_interval
from ddim_core.reports.grid_figures import contact_sheet
from ddim_core.reports.tuning import (
    Course,
    course_plot,
    is_tuned,
    read_bought,
    read_known,
    short,
)
from ddim_core.reports.verdicts.figures import pareto_plot
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.storage import store
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.tuning.tune import Tuned

TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = ("stock", "tuned", "long")


@cached_task
def render_tuning(
    tuned: list[Tuned],
    rows: list[CellRow],
    checkpoint: str,
    weights: str,
    notes: list[str],
    margin: float,
) -> Report:
    """Draws the figures, reads the numbers and renders the page.

    Args:
        tuned: What was found.
        rows: Of the grid that proves it; empty where that was left out.
        checkpoint, weights: Its name, and the digest of its content.
        notes: What is to be known, for people.
        margin: A difference of FID that does not count.
    """
    first = tuned[0]
    figures = {"courses": course_plot(_courses(tuned), first.noisiest, first.family == "flow")}
    for i, one in enumerate(tuned):
        images = store.get_arrays(one.images)
        name = f"{_head(one, tuned)}, {one.calls} calls"
        figures[f"images{i}"] = contact_sheet(
            {f"{name}, stock": images["stock"], f"{name}, tuned": images["tuned"],
             f"{one.long_steps} steps": images["long"]}
        )  # fmt: skip
    if rows:
        figures["calls"] = pareto_plot(rows)
    found = frozenset((one.sampler, one.guidance) for one in tuned)
    reading = read_bought(rows, found, margin)
    reading += [
        read_known(known.sampler, known.behind.mean, known.behind.low, known.behind.high)
        for one in tuned
        for known in one.known
    ]
    text = page.html(
        TEMPLATE,
        figures,
        {
            "data": {"lines": {"calls": charts.over_calls(rows, FID)} if rows else {}},
            "checkpoint": checkpoint,
            "identities": page.identities(rows, [weights]),
            "tuned": tuned,
            "rows": sorted(rows, key=lambda row: (row.nfe, row.fid)),
            "found": found,
            "is_tuned": is_tuned,
            "reading": reading,
            "notes": notes,
            "margin": margin,
            "short": short,
            "interval": with_interval,
            "first": rows[0] if rows else None,
        },
    )
    return page.stored(text, figures, reading)


def _courses(tuned: list[Tuned]) -> list[Course]:
    found = []
    for one in tuned:
        head = _head(one, tuned)
        scale = f", guidance {one.guidance:g}" if one.guidance != 1.0 else ""
        name = f"{head}, {one.calls} calls{scale}"
        found.append(Course(f"{name}, tuned", one.timesteps, True))
        found.append(Course(f"{name}, stock", one.stock_timesteps, False))
    return found


def _head(one: Tuned, tuned: list[Tuned]) -> str:
    """A sampler's name, without its keys where no other of that name was tuned."""
    head = one.stock.partition("?")[0]
    others = {other.stock for other in tuned if other.stock.partition("?")[0] == head}
    return head if len(others) == 1 else one.stock


@task(name="publish-tuning", task_run_name=run_name("publish-tuning"))
def publish_tuning(report: Report, tuned: list[Tuned]) -> str:
    """Puts a rendered report where people look: reports/<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    place = page.publish(f"tune-{report.page.artifact[:12]}", report)
    lines = [
        f"| `{one.sampler}` | {one.guidance:g} | {one.judged.stock.mean:.3g} | "
        f"{one.judged.tuned.mean:.3g} |"
        for one in tuned
    ]
    head = "| tuned | guidance | as it stands | tuned |\n|---|---|---|---|\n"
    text = "\n\n".join(report.reading)
    page.show(
        "tune", f"{text}\n\n{head}" + "\n".join(lines) + f"\n\nReport: {page.linked(place)}\n"
    )
    return place
