"""Tuned settings and the rows that prove them in, their report out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from prefect import task

from ddim_core.common.foreign import Json
from ddim_core.decisions.measure import FID, MEASURES
from ddim_core.decisions.row import CellRow, interval_text, with_interval
from ddim_core.reports.asked_for import OF_PROMPTS
from ddim_core.reports.tuning import (
    Course,
    headline,
    is_tuned,
    placed,
    read_bought,
    read_heed,
    read_known,
    read_narrowed,
    short,
    usual_courses,
)
from ddim_core.tuning.judged import BY_DISTANCE, BY_FID, Apart
from tasks.cells.lookup import real_images
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.reports.frame.pictures import Pictures, picture_data
from tasks.storage import store
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.tuning.found import Tuned

TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = ("stock", "tuned", "long")  # images of a setting, by run
RUNS = ("as it stands", "tuned", "the long run")


@cached_task
def render_tuning(
    tuned: list[Tuned],
    rows: list[CellRow],
    checkpoint: str,
    weights: str,
    notes: list[str],
    margin: float,
    levels: list[tuple[float, float]],
) -> Report:
    """Reads the numbers and renders the page.

    Args:
        tuned: What was found.
        rows: Of the grid that proves it; empty where that was left out.
        checkpoint, weights: Its name, and the digest of its content.
        notes: What is to be known, for people.
        margin: A difference of FID that does not count.
        levels: The network's timesteps from 0 on, and their noise levels.
    """
    found = _found(tuned)
    told = headline(rows, found, margin)
    reading = [*([told] if told else []), *read_bought(rows, found, margin)]
    heed = read_heed(rows, found)
    reading += heed
    reading += [
        read_narrowed(
            f"{_head(one, tuned)}, {one.calls} calls, guidance {one.guidance:g}",
            one.narrowed.interval, one.judged.tuned.mean,
            (one.narrowed.gain.mean, one.narrowed.gain.low, one.narrowed.gain.high),
        )
        for one in tuned
        if one.narrowed
    ]  # fmt: skip
    reading += [
        read_known(
            known.sampler,
            known.behind.mean,
            known.behind.low,
            known.behind.high,
            (BY_FID if one.by_fid else BY_DISTANCE)[0],
        )
        for one in tuned
        for known in one.known
    ]
    lines = {"courses": _course_chart(tuned, levels)}
    if rows:
        lines["calls"] = charts.over_calls(rows, FID)
    text = page.html(
        TEMPLATE,
        {},
        {
            "data": {"lines": lines, **_compared(tuned, rows)},
            "checkpoint": checkpoint,
            "weights": weights,
            "identities": page.identities(rows, [weights]),
            "tuned": tuned,
            "rows": sorted(rows, key=lambda row: (row.nfe, row.fid)),
            "found": found,
            "is_tuned": is_tuned,
            "reading": reading,
            "notes": notes,
            "margin": margin,
            "heed": heed,
            "heeded": [
                measure
                for name in OF_PROMPTS
                if (measure := MEASURES[name]) and any(map(measure.is_known, rows))
            ],
            "short": short,
            "guided": _guided,
            "interval": with_interval,
            "first": rows[0] if rows else None,
        },
    )
    return page.stored(text, {}, reading)


def _found(tuned: list[Tuned]) -> list[tuple[str, float, str | None]]:
    """What was tuned; where noise levels of guidance were found, the list for all of them too."""
    found: list[tuple[str, float, str | None]] = []
    for one in tuned:
        levels = interval_text(one.narrowed.interval) or "" if one.narrowed else None
        found.append((one.sampler, one.guidance, levels))
        if one.narrowed and one.narrowed.interval:
            found.append((one.narrowed.everywhere, one.guidance, ""))
    return found


def _course_chart(tuned: list[Tuned], levels: list[tuple[float, float]]) -> Json:
    """The noise level of each network call over its place in the run: tuned, as the samplers stand,
    and as others would have it."""
    seen: dict[tuple[float, ...], str] = {}
    for course in _courses(tuned):
        seen.setdefault(course.timesteps, course.name)
    is_flow, top = tuned[0].family == "flow", tuned[0].noisiest
    timesteps, at = np.array(levels).T

    def level(t: float) -> float:
        return float(np.interp(t, timesteps, at))

    usual = usual_courses(is_flow, top, level)
    asked = {name: calls for calls, name in seen.items()}
    pairs = {name: placed(calls, level) for name, calls in asked.items()} | usual
    points = [
        charts.Point(name, x, y, None, None, f"{name}\nnoise level {y:.4g}{_at(asked, name, i)}",
                     f"{100 * x:.0f} %")
        for name, of in pairs.items()
        for i, (x, y) in enumerate(of)
    ]  # fmt: skip
    return charts.lines(
        "Where the network is asked", "place in the run, from the first call to the last",
        f"noise level ({'share of noise' if is_flow else 'noise over signal'})", points,
        log_y=not is_flow, bare=list(usual),
    )  # fmt: skip


def _at(asked: Mapping[str, Sequence[float]], name: str, call: int) -> str:
    return f", t = {asked[name][call]:.4g}" if name in asked else ""


def _compared(tuned: list[Tuned], rows: list[CellRow]) -> Json:
    """What the page's script compares: the three runs of each setting, from one noise."""
    cells, batches = [], {}
    for one in tuned:
        images, line = store.get_arrays(one.images), _named(one, tuned)
        apart = {"stock": one.judged.stock, "tuned": one.judged.tuned, "long": one.long}
        for place, run in enumerate(SHOWN):
            name = f"{line}, {RUNS[place]}"
            batches[name] = images[run]
            cells.append({"id": name, "name": name, "line": line, "steps": place,
                          "note": _figure(apart[run], one)})  # fmt: skip
    left, right = list(batches)[:2]
    real = real_images(rows[0]) if rows else None
    data = picture_data(Pictures(batches, left, right, real=real))
    return {"columns": RUNS, "cells": cells, "images": data}


def _courses(tuned: list[Tuned]) -> list[Course]:
    found = []
    for one in tuned:
        name = _named(one, tuned)
        found.append(Course(f"{name}, tuned", one.timesteps, True))
        found.append(Course(f"{name}, stock", one.stock_timesteps, False))
    return found


def _figure(apart: Apart | None, one: Tuned) -> str:
    """The figure of a run; of a long one that distances are taken from, its steps."""
    if apart is None:
        return f"{one.long_steps} steps"
    figure = f"{apart.mean:.3g} [{apart.low:.3g}, {apart.high:.3g}]"
    return f"FID {figure}" if one.by_fid else f"{figure} from the end of the long run"


def _named(one: Tuned, tuned: list[Tuned]) -> str:
    scale = f", guidance {_guided(one)}" if one.guidance != 1.0 else ""
    return f"{_head(one, tuned)}, {one.calls} calls{scale}"


def _guided(one: Tuned) -> str:
    """Its scale of guidance, and between which noise levels it was found to hold best."""
    levels = interval_text(one.narrowed.interval) if one.narrowed else None
    return f"{one.guidance:g}" + (f" in [{levels}]" if levels else "")


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
        f"| `{one.sampler}` | {_guided(one)} | {one.judged.stock.mean:.3g} | "
        f"{one.judged.tuned.mean:.3g} |"
        for one in tuned
    ]
    head = "| tuned | guidance | as it stands | tuned |\n|---|---|---|---|\n"
    text = "\n\n".join(report.reading)
    page.show(
        "tune", f"{text}\n\n{head}" + "\n".join(lines) + f"\n\nReport: {page.linked(place)}\n"
    )
    return place
