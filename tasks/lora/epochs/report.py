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
from ddim_core.reports.lora_answer import bounds, headline, setting, share
from ddim_core.reports.lora_figures import folded, picture_rows
from ddim_core.reports.lora_sentences import interval, number
from tasks.lora.epochs.files import BASE
from tasks.reports import page
from tasks.reports.frame import charts
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
    rows: Sequence[LoraRow],
    reading: list[str],
) -> Report:
    """Draws the figures and renders the page; returns references to them.

    Args:
        ranking: Of all candidates.
        asked: What was drawn.
        epochs: Pictures by file at the first's setting, the base's at its head.
        scales: Pictures of the first by scale.
        training: The images of the style or the subject.
        rows: Of all files and scales.
        reading: The answer.
    """
    first, columns = rows[0], spread(len(asked.prompts), SHOWN)
    chosen = [i * asked.per_prompt for i in columns]
    labels = [folded(asked.prompts[i], LABEL) for i in columns]
    real = store.get_arrays(training)["images"]
    drawn = _pictures(_fewer(epochs, ranking.first.candidate.name), chosen)
    figures = {
        "epochs": picture_rows({f"{first.kind} images": real[spread(len(real), SHOWN)], **drawn},
                               labels),
        "scales": picture_rows(_pictures(scales, chosen), labels),
    }  # fmt: skip
    values = {
        "first": first, "identities": page.identities((), (d for row in rows for d in row.digests)),
        "asked": asked, "reading": reading, "ranked": ranking.ranked,
        "faults": FAULTS, "bounds": bounds, "setting": setting,
        "meanings": {name: MEANINGS[name][0] for name in FAULTS},
        "best": setting(ranking.first), "proven": ranking.first.is_proven,
        "headline": headline(ranking), "told": _told(reading, headline(ranking)),
        "of_base": _of_base(ranking), "number": number, "drawn": list(drawn), "swept": list(scales),
        "gained": _gained(ranking, ranking.first.candidate.sampler),
        "of": ranking.first.candidate,
        "data": {"lines": {"epochs": _charts(ranking)},
                 **_compared(ranking, asked, epochs, scales, real)},
    }  # fmt: skip
    return page.stored(page.html(TEMPLATE, figures, values), figures, reading)


def _told(reading: Sequence[str], head: str) -> list[str]:
    """The sentences below a headline, with which the first of them begins."""
    first = reading[0].removeprefix(f"{head}: ")
    return [first[:1].upper() + first[1:], *reading[1:]]


def _of_base(ranking: Ranking) -> dict[str, str]:
    """Each fault of the base in words, by sampler where they differ."""
    found = {}
    for name in FAULTS:
        by = {one.candidate.sampler: number(name, one.candidate.base[name].value)
              for one in ranking.ranked if name in one.candidate.base}  # fmt: skip
        if by:
            alike = len(set(by.values())) == 1
            found[name] = next(iter(by.values())) if alike else ", ".join(
                f"{value} by {sampler}" for sampler, value in by.items())  # fmt: skip
    return found


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
    gained = _gained(ranking, first.sampler)
    told, batches = [], {}
    for (file, scale), ref in shown.items():
        name = file if file == BASE else f"{file}, scale {scale:g}"
        batches[name] = store.get_arrays(ref)["images"][chosen]
        told.append({"id": name, "name": name, "line": file, "steps": scale,
                     "note": gained.get((file, scale), "")})  # fmt: skip
    texts = {name: [asked.prompts[i] for i in columns] for name in batches}
    best = f"{first.name}, scale {first.scale:g}"
    data = picture_data(Pictures(batches, BASE, best, texts=texts, real=real))
    return {"column": "scale", "cells": told, "images": data}


def _gained(ranking: Ranking, sampler: str) -> dict[tuple[str, float], str]:
    """What each file gains at each scale by a sampler, in words."""
    return {
        (one.candidate.name, one.candidate.scale): f"usable gain {bounds(one.gain)}"
        for one in ranking.ranked
        if one.candidate.sampler == sampler
    }


def _charts(ranking: Ranking) -> list[Json]:
    """Usable gain, likeness gained and every fault over the files, a line a scale and sampler."""
    ordered = sorted(ranking.ranked, key=lambda one: (one.candidate.place, one.candidate.scale))
    names = list({one.candidate.place: one.candidate.name for one in ordered}.items())
    at = {place: i for i, (place, _) in enumerate(names)}
    points: dict[str, list[charts.Point]] = {}
    for one in ordered:
        of = one.candidate
        line = f"scale {of.scale:g}" + ("" if of.sampler == "own" else f", {of.sampler}")
        for title, (value, low, high, words) in _measured(one).items():
            note = f"{setting(one)}\n{title}: {words}"
            points.setdefault(title, []).append(
                charts.Point(line, at[of.place], value, low, high, note, of.name)
            )
    ticks = [(float(i), name) for i, (_, name) in enumerate(names)]
    return [charts.lines(title, "file", title, of, ticks=ticks) for title, of in points.items()]


def _measured(one: Ranked) -> dict[str, tuple[float, float | None, float | None, str]]:
    """What is drawn of a setting: value, both ends of its interval, and the same in words."""
    found: dict[str, tuple[float, float | None, float | None, str]] = {
        f"{title} \u2191": (of.value, of.low, of.high, bounds(of))
        for title, of in (("usable gain", one.gain), ("likeness gained", one.likeness))
    }
    for name, share_of in one.candidate.measures.items():
        if name in FAULTS:
            low, high = (
                None if end is None else 100 * end for end in (share_of.low, share_of.high)
            )
            title = f"{name.replace('_', ' ')}, % \u2193"
            found[title] = (100 * share_of.value, low, high, interval(name, share_of))
    return found


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
