"""A scorecard's rows in, a report out: one HTML file, Parquet rows apart, and Prefect artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import task

from ddim_core.common.foreign import Json
from ddim_core.images.load import load_images
from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.lora.scoring.specs import ROLES, PromptSet
from ddim_core.reports.lora_figures import (
    WINDOW,
    measure_curves,
    picture_rows,
    sweep_grid,
    training_curves,
)
from ddim_core.reports.lora_sentences import (
    by_role,
    full_scale,
    headline,
    interval,
    number,
    read_scorecard,
    shown_first,
)
from ddim_core.safe_files.loras.files import content_digests
from ddim_core.text2image.judge import Training
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.reports.frame.pictures import PAGE_IMAGES, Pictures, picture_data
from tasks.storage import store
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.storage.store import ArtifactRef

BESIDE, SWEPT = 12, 8  # pictures
MOST_STEPS = 400  # of a training whose losses are drawn
TEMPLATE = Path(__file__).with_suffix(".html")


@cached_task
def render_lora_report(
    rows: list[LoraRow],
    asked: list[PromptSet],
    drawn: Sequence[Sequence[ArtifactRef]],
    training: ArtifactRef,
    losses: ArtifactRef | None,
    validation: Sequence[tuple[int, float]],
    judge: Training | None,
    licence: str,
    files: Sequence[ArtifactRef] = (),
) -> Report:
    """Draws the figures, reads the rows and renders the page; returns references to them.

    Args:
        rows: The scorecard's, of all prompt sets.
        asked: The prompt sets.
        drawn: The pictures of each, by scale.
        training: The training images' folder.
        losses: Arrays with the `loss` of every step.
        validation: Pairs of a step and its validation loss.
        judge: What judged, if a judge did.
        licence: Of the training data.
        files: The LoRA's own, as folders in the store.
    """
    scales = sorted({row.scale for row in rows})
    shown = full_scale(rows).scale
    images = [[store.get_arrays(ref)["images"] for ref in refs] for refs in drawn]
    figures = {"measures": measure_curves(rows)}
    figures["beside"] = _beside(asked[0], images[0], training, scales.index(shown), shown)
    for prompts, by_scale in zip(asked, images, strict=True):
        rows_shown = spread(len(prompts.prompts), SWEPT)
        first = [i * prompts.per_prompt for i in rows_shown]
        figures[f"sweep_{_key(prompts.role)}"] = sweep_grid(
            [prompts.prompts[i] for i in rows_shown],
            {scale: x[first] for scale, x in zip(scales, by_scale, strict=True)},
        )
    lines: dict[str, Json | list[Json]] = {"measures": _charts(rows)}
    if losses is not None:
        loss = store.get_arrays(losses)["loss"].astype(np.float64)
        figures["training"] = training_curves(loss, validation)
        lines["training"] = _loss_chart(loss, validation)
    reading = read_scorecard(rows)
    grouped = by_role(rows)
    told = {(row.prompts, row.scale): shown_first(row) for row in rows}
    own = [digest for ref in files for digest in content_digests(store.get_folder(ref))]
    values = {
        "told": told,
        "scales": scales,
        "first": rows[0],
        "identities": page.identities((), [*rows[0].digests, *own]),
        "grouped": grouped,
        "sweeps": [(role, f"sweep_{_key(role)}") for role in grouped],
        "roles": ROLES,
        "meanings": MEANINGS,
        "reading": [headline(rows), *reading],
        "judge": judge,
        "licence": licence,
        "shown_scale": shown,
        "number": number,
        "data": {
            "lines": lines,
            **_pictured(asked, images, scales, shown, training, told),
        },
    }
    return page.stored(page.html(TEMPLATE, figures, values), figures, reading)


@task(name="publish-lora-report", task_run_name=run_name("publish-lora-report"))
def publish_lora_report(name: str, report: Report, rows: list[LoraRow]) -> str:
    """Puts a rendered report where people look: reports/lora-<name>/, and Prefect artifacts.

    Returns the page's place.
    """
    place, kind = page.publish(f"lora-{name}", report), rows[0].kind
    page.show(f"lora-{kind}-scorecard", [_table_line(row) for row in rows])
    page.show(
        f"lora-{kind}-report", "\n\n".join([*report.reading, f"Report: {page.linked(place)}"])
    )
    return place


def _pictured(
    asked: Sequence[PromptSet],
    images: Sequence[Sequence[NDArray[np.uint8]]],
    scales: Sequence[float],
    shown: float,
    training: ArtifactRef,
    measured: Mapping[tuple[str, float], str],
) -> Json:
    """What the page's script compares: one picture a prompt, of each set of prompts by scale."""
    told, batches, texts = [], {}, {}
    for prompts, by_scale in zip(asked, images, strict=True):
        columns = spread(len(prompts.prompts), PAGE_IMAGES)
        for scale, pictures in zip(scales, by_scale, strict=True):
            name = f"{prompts.role}, scale {scale:g}"
            batches[name] = pictures[[i * prompts.per_prompt for i in columns]]
            texts[name] = [prompts.prompts[i] for i in columns]
            told.append({"id": name, "name": name, "line": prompts.role, "steps": scale,
                         "note": measured.get((prompts.role, scale), "")})  # fmt: skip
    side = images[0][0].shape[1]
    real = load_images(str(store.get_folder(training)), resolution=side).images
    role = asked[0].role
    left, right = (f"{role}, scale {scale:g}" for scale in (scales[0], shown))
    data = picture_data(Pictures(batches, left, right, texts=texts, real=real))
    return {"column": "scale", "cells": told, "images": data}


def _beside(
    asked: PromptSet,
    by_scale: Sequence[NDArray[np.uint8]],
    training: ArtifactRef,
    at: int,
    scale: float,
) -> bytes:
    """Training images above pictures of the same noise without and with the LoRA."""
    side = by_scale[0].shape[1]
    real = load_images(str(store.get_folder(training)), resolution=side).images
    chosen = spread(len(by_scale[0]), BESIDE)
    return picture_rows(
        {
            "training images": real[spread(len(real), BESIDE)],
            "base": by_scale[0][chosen],
            f"LoRA, scale {scale:g}": by_scale[at][chosen],
        }
    )


def spread(n: int, most: int) -> list[int]:
    """Returns the indices of at most `most` of n things, evenly spread."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, most)).round()})


def _table_line(row: LoraRow) -> dict[str, str]:
    measures = {name.replace("_", " "): interval(name, x) for name, x in row.measures.items()}
    return {"prompts": row.prompts, "scale": f"{row.scale:g}", **measures}


def _charts(rows: list[LoraRow]) -> list[Json]:
    """Every measure over the scale, a line for each set of prompts."""
    names = [name for name in MEANINGS if any(name in row.measures for row in rows)]
    found = []
    for name in names:
        meaning, better = MEANINGS[name]
        points = [
            charts.Point(
                role, row.scale, score.value, score.low, score.high,
                f"{role}, scale {row.scale:g}\n{interval(name, score)}", f"scale {row.scale:g}",
            )
            for role, line in by_role(rows).items()
            for row in line
            if (score := row.measures.get(name))
        ]  # fmt: skip
        arrow = {1: " \u2191", -1: " \u2193"}.get(better, "")
        y = f"{meaning}{arrow}"
        found.append(charts.lines(name.replace("_", " ") + arrow, "scale of the LoRA", y, points))
    return found


def _loss_chart(loss: NDArray[np.float64], validation: Sequence[tuple[int, float]]) -> Json:
    """The loss of steps, at most some hundred, the running mean that ends there, and validation."""
    width = min(WINDOW, len(loss))
    means = np.convolve(loss, np.ones(width) / width, mode="valid")
    at = spread(len(loss), MOST_STEPS)
    told = {
        "loss of a step": [(i + 1, loss[i]) for i in at],
        f"mean of {width}": [(i + 1, means[i - width + 1]) for i in at if i >= width - 1],
        "validation": list(validation),
    }
    points = [
        charts.Point(name, float(x), float(y), None, None, f"step {x}\n{name} {y:.4g}", f"step {x}")
        for name, of in told.items()
        for x, y in of
    ]
    return charts.lines("Loss of the training", "step", "loss", points, bare=list(told)[:2])


def _key(role: str) -> str:
    return role.replace("-", "_")
