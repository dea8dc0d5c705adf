"""Scores and points in, a report out: one HTML file that opens from disk, figures, and a GIF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prefect import task

from ddim_core.common.foreign import Json
from ddim_core.decisions.row import line_name
from ddim_core.diffusion.sampling import ImageNoise
from ddim_core.diffusion.schedule import CLEAN, NoiseSchedule
from ddim_core.diffusion.specs import GridCell
from ddim_core.points.row import PointRow
from ddim_core.points.score import PointSetting, fresh_points, interval, read_points, summary
from ddim_core.points.specs import PointTrainSpec
from ddim_core.reports.point_figures import (
    animation,
    chamfer_curves,
    forward_noising,
    over_truth,
    reverse_process,
)
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.storage import places, store
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.storage.store import ArtifactRef

TEMPLATE = Path(__file__).with_suffix(".html")
FORWARD_FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
PANELS, GIF_FRAMES = 7, 60
FIRST_SEED = 0


@dataclass(frozen=True)
class PointReport(Report):
    """A report with a GIF of the reverse process."""

    animation: ArtifactRef


@cached_task
def render_point_report(
    rows: list[PointRow],
    generated: list[ArtifactRef],
    trace: ArtifactRef,
    traced: GridCell,
    training: PointTrainSpec,
    findings: list[str],
) -> PointReport:
    """Draws the figures, reads the numbers and renders the page; returns references to them.

    Args:
        rows: All rows, those of the first trained model first.
        generated: Points of the first sampling seed for the first rows, in their order.
        trace: Every step of `traced`, on the first model.
        traced: The cell whose reverse process is shown.
        training: How the first model was trained.
        findings: Of the schedule linter.
    """
    n_points = rows[0].n_points
    truth = fresh_points(training.dataset, n_points, FIRST_SEED)
    clouds = [store.get_arrays(ref)["points"] for ref in generated]
    settings, about = summary(rows), ", ".join(traced.label.split()).replace("=", " = ")
    steps = store.get_arrays(trace)
    noisy = _noised(training, truth)
    figures = {
        "forward": forward_noising(noisy),
        "reverse": _reverse(steps, about),
        "generated": over_truth(list(zip(rows, clouds, strict=False)), truth),
        "chamfer": chamfer_curves(settings, rows[0], _protocol(rows)),
    }
    kept = _even(len(steps["x"]), GIF_FRAMES)
    gif = animation(list(steps["x"][kept]), steps["t"][kept].tolist(), truth, about)
    reading = read_points(rows)
    inlined = {**figures, "process": gif}
    text = _page(rows, settings, inlined, reading, about, [t for t in noisy if t >= 0], findings)
    report = page.stored(text, figures, reading)
    return PointReport(**vars(report), animation=store.put(gif, "animation"))


@task(name="publish-point-report", task_run_name=run_name("publish-point-report"))
def publish_point_report(name: str, report: PointReport, rows: list[PointRow]) -> str:
    """Puts a rendered report where people look: reports/points-<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    folder = f"points-{name[:12]}"
    place = page.publish(folder, report)
    gif = places.data_url("reports", folder, "process.gif")
    store.write_whole(gif, store.get(report.animation))
    page.show("swiss-roll-report", _markdown(rows, report.reading, place))
    return place


def _noised(training: PointTrainSpec, truth: NDArray[np.float32]) -> dict[int, Any]:
    """True points at several timesteps of the forward process, with one draw of noise."""
    schedule = NoiseSchedule.from_spec(training.noise)
    noise = ImageNoise(FIRST_SEED, range(len(truth)), (2,)).x_T().numpy()
    noisy: dict[int, NDArray[np.float32]] = {CLEAN: truth}
    for fraction in FORWARD_FRACTIONS:
        t = round(fraction * schedule.n_train) - 1
        signal = schedule.at(t)
        noisy[t] = (signal**0.5 * truth + (1.0 - signal) ** 0.5 * noise).astype(np.float32)
    return noisy


def _reverse(steps: dict[str, NDArray[Any]], about: str) -> bytes:
    n_steps = len(steps["x0_hat"])
    chosen = _even(n_steps, PANELS - 1)
    x = {int(steps["t"][i]): steps["x"][i] for i in [*chosen, n_steps]}
    x0_hat = {int(steps["t"][i]): steps["x0_hat"][min(i, n_steps - 1)] for i in [*chosen, n_steps]}
    return reverse_process(x, x0_hat, about)


def _even(n: int, most: int) -> list[int]:
    """Up to `most` indices of 0..n-1, even, with both ends."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)).tolist()


def _protocol(rows: list[PointRow]) -> str:
    first, n_models = rows[0], len({row.training_seed for row in rows})
    seeds = f"{len(first.sampling_seeds)} sampling seeds"
    over = seeds if n_models == 1 else f"{n_models} trained models, {seeds} each"
    return (
        f"Chamfer distance of {first.n_points} points to as many fresh ones of the "
        f"{first.dataset}; {first.spacing} spacing, {over}"
    )


def _page(
    rows: list[PointRow],
    settings: list[PointSetting],
    figures: dict[str, bytes],
    reading: list[str],
    about: str,
    noised: list[int],
    findings: list[str],
) -> str:
    return page.html(
        TEMPLATE,
        figures,
        {
            "data": {"lines": {"chamfer": _chart(rows[0], settings)}},
            "rows": rows,
            "settings": settings,
            "first": rows[0],
            "reading": reading,
            "protocol": _protocol(rows),
            "about": about,
            "noised": noised,
            "findings": findings,
            "line_name": line_name,
            "interval": interval,
        },
    )


def _chart(first: PointRow, settings: list[PointSetting]) -> Json:
    scored = [
        (line_name(one), one.steps, one.chamfer, one.chamfer_low, one.chamfer_high)
        for one in settings
    ]
    rule = (first.floor, f"two true samples: {first.floor:.2f}")
    return charts.over_steps("Chamfer distance over S", "Chamfer distance", scored, rule)


def _markdown(rows: list[PointRow], reading: list[str], place: str) -> str:
    lines = ["| S | eta | Chamfer distance |", "|---|---|---|"]
    for record in summary(rows):
        score = interval(record.chamfer, record.chamfer_low, record.chamfer_high)
        lines.append(f"| {record.steps} | {record.eta:g} | {score} |")
    table = "\n".join(lines)
    return (
        f"{_protocol(rows)}.\n\n{table}\n\n"
        + "\n\n".join(reading)
        + f"\n\nReport: {page.linked(place)}\n"
    )
