"""A ranking of LoRAs in, its page out: the answer, curves, pictures to look at, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prefect import task

from ddim_core.common.digest import digest
from ddim_core.common.foreign import Json
from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.ranking import FAULTS, Ranked, Ranking
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.reports.lora_answer import bounds, setting, share
from ddim_core.reports.lora_figures import epoch_curves, folded, picture_rows
from tasks.lora.epochs.files import BASE
from tasks.reports import page
from tasks.reports.frame.pictures import PAGE_IMAGES, Pictures, picture_data
from tasks.reports.lora import spread
from tasks.storage import store
from tasks.storage.artifact import Report
from tasks.storage.store import ArtifactRef

TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = 10  # prompts in a row of pictures
LABEL = 12  # characters of a line above a picture
MOST_ROWS = 24  # of files; more are spread evenly, the first of the ranking among them


@task(name="render-epochs")
def render_epochs(
    ranking: Ranking,
    asked: PromptSet,
    epochs: Mapping[str, ArtifactRef],
    scales: Mapping[str, ArtifactRef],
    training: ArtifactRef,
    first: LoraRow,
    reading: list[str],
) -> Report:
    """Draws the figures and renders the page; returns references to them.

    Args:
        ranking: Of all candidates.
        asked: What was drawn.
        epochs: Pictures by file at the first's setting, the base's at its head.
        scales: Pictures of the first by scale.
        training: The images of the style or the subject.
        first: Any of the rows, for the protocol.
        reading: The answer.
    """
    columns = spread(len(asked.prompts), SHOWN)
    chosen = [i * asked.per_prompt for i in columns]
    labels = [folded(asked.prompts[i], LABEL) for i in columns]
    real = store.get_arrays(training)["images"]
    rows = _pictures(_fewer(epochs, ranking.first.candidate.name), chosen)
    figures = {
        "curves": epoch_curves(ranking),
        "epochs": picture_rows({f"{first.kind} images": real[spread(len(real), SHOWN)], **rows},
                               labels),
        "scales": picture_rows(_pictures(scales, chosen), labels),
    }  # fmt: skip
    values = {
        "first": first, "asked": asked, "reading": reading, "ranked": ranking.ranked,
        "faults": FAULTS, "bounds": bounds, "setting": setting, "share": share,
        "meanings": {name: MEANINGS[name][0] for name in FAULTS},
        "best": setting(ranking.first),
        "data": _compared(ranking, asked, epochs, scales, real),
    }  # fmt: skip
    return page.stored(page.html(TEMPLATE, figures, values), figures, reading)


def _compared(
    ranking: Ranking,
    asked: PromptSet,
    epochs: Mapping[str, ArtifactRef],
    scales: Mapping[str, ArtifactRef],
    real: NDArray[np.uint8],
) -> Json:
    """What the page's script compares: one picture a prompt, of every file at the first's setting,
    of the first at every scale, and of the base."""
    first = ranking.first.candidate
    shown = {(name, first.scale if name != BASE else 0.0): ref
             for name, ref in _fewer(epochs, first.name).items()}  # fmt: skip
    shown |= {(first.name, float(scale)): ref for scale, ref in scales.items() if scale != BASE}
    columns = spread(len(asked.prompts), PAGE_IMAGES)
    chosen = [i * asked.per_prompt for i in columns]
    told, batches = [], {}
    for (file, scale), ref in shown.items():
        name = file if file == BASE else f"{file}, scale {scale:g}"
        batches[name] = store.get_arrays(ref)["images"][chosen]
        told.append({"id": name, "name": name, "line": file, "steps": scale})
    texts = {name: [asked.prompts[i] for i in columns] for name in batches}
    best = f"{first.name}, scale {first.scale:g}"
    data = picture_data(Pictures(batches, BASE, best, texts=texts, real=real))
    return {"column": "scale", "cells": told, "images": data}


@task(name="publish-epochs")
def publish_epochs(report: Report, ranking: Ranking, rows: list[LoraRow]) -> str:
    """Puts a rendered page below reports/, and the ranking among Prefect's artifacts.

    Returns the page's place.
    """
    name = f"lora-score-{digest(sorted(row.row_digest for row in rows))[:12]}"
    place = page.publish(name, report)
    page.show("lora-score-ranking", [_line(one) for one in ranking.ranked])
    page.show("lora-score-report", "\n\n".join([*report.reading, f"Report: {page.linked(place)}"]))
    return place


def _line(one: Ranked) -> dict[str, str]:
    return {
        "setting": setting(one), "usable gain": bounds(one.gain),
        "behind the first": bounds(one.behind), "likeness": bounds(one.likeness),
        **{name.replace("_", " "): share(one, name) for name in FAULTS},
    }  # fmt: skip


def _pictures(
    by_name: Mapping[str, ArtifactRef], chosen: Sequence[int]
) -> dict[str, NDArray[np.uint8]]:
    return {name: store.get_arrays(ref)["images"][chosen] for name, ref in by_name.items()}


def _fewer(epochs: Mapping[str, ArtifactRef], best: str) -> dict[str, ArtifactRef]:
    names = list(epochs)
    kept = {0, names.index(best), *spread(len(names), MOST_ROWS)}
    return {names[i]: epochs[names[i]] for i in sorted(kept)}
