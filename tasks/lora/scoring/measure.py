"""Pictures of a base with and without a LoRA in, their measures with paired intervals out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.digest import digest
from ddim_core.devices.names import CPU
from ddim_core.diffusion.specs import Execution
from ddim_core.images.load import load_images
from ddim_core.lora.scoring.likeness import ClipModel, DinoModel, ThumbnailFeatures
from ddim_core.lora.scoring.measures import Knowledge, PictureFeatures, take_measures
from ddim_core.lora.scoring.ranking import DECIDING
from ddim_core.lora.scoring.row import Score
from ddim_core.lora.scoring.scorecard import Measure, change, groups_of, mean_measure
from ddim_core.lora.scoring.specs import PRIOR, PromptSet
from ddim_core.reports.lora_sentences import SHARES
from ddim_core.statistics.paired import PairedDifference
from ddim_core.text2image.judge import EmojiJudge, asked_in
from tasks.image_scores.judge import values_of
from tasks.image_scores.ready import StoredScore
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class Compared:
    """What pictures are compared with, captioned folders or arrays of images; see `Knowledge`."""

    training: ArtifactRef
    real: ArtifactRef | None = None
    style: ArtifactRef | None = None
    base: ArtifactRef | None = None
    subject: ArtifactRef | None = None


@dataclass(frozen=True)
class JudgedScales:
    """Pictures by one score of images.

    Attributes:
        score: The score; its digest is of all that decides the numbers.
        values: Of the pictures at each scale, one a picture.
    """

    score: StoredScore
    values: tuple[ArtifactRef, ...]


@dataclass(frozen=True)
class AtScale:
    """The measures taken at a scale, by name; `deciding` are those that rank LoRAs, whole."""

    scale: float
    measures: dict[str, Score]
    deciding: dict[str, Measure]


@dataclass(frozen=True)
class PictureScores:
    """The measures of a prompt set by scale, and the features that they were taken by."""

    scores: tuple[AtScale, ...]
    extractor: str
    created_at: str
    extractor_digest: str


@cached_task
def score_pictures(
    asked: PromptSet,
    scales: list[float],
    drawn: Sequence[ArtifactRef],
    known: Compared,
    aliases: dict[str, str],
    extractor: ArtifactRef,
    models: dict[str, str],
    location: dict[str, str],
    execution: Execution | None = None,
    judged: Sequence[JudgedScales] = (),
) -> PictureScores:
    """Takes all measures of a prompt set at every scale, each against the first one, paired.

    Args:
        asked: The prompt set.
        scales: The first is 0, the base alone.
        drawn: The pictures at each scale, of one noise.
        known: What they are compared with.
        aliases: Words of prompts that stand for a subject the judge knows.
        extractor: The judge, or the thumbnails.
        models: Digests of `clip` and `dino`, where they are given.
        location: Their folders.
        execution: Where they run; None is the CPU.
        judged: The pictures by scores of images.
    """
    images = [store.get_arrays(ref)["images"] for ref in drawn]
    space = _extractor(extractor)
    side = images[0].shape[1]
    known_but_for_models = Knowledge(
        extractor=space,
        training=_images(known.training, side),
        real=_images(known.real, side) if known.real else None,
        style=_images(known.style, side) if known.style else None,
        base=_images(known.base, side) if known.base else None,
        subject=_images(known.subject, side) if known.subject else None,
        asked=_asked(asked, aliases, known.subject is not None)
        if isinstance(space, EmojiJudge)
        else None,
        prior=asked.role in PRIOR,
    )
    with card(execution.device if execution and models else CPU) as device:
        knowledge = replace(
            known_but_for_models,
            clip=ClipModel(Path(location["clip"]), device) if "clip" in models else None,
            dino=DinoModel(Path(location["dino"]), device) if "dino" in models else None,
        )
        measured = [take_measures(x, images[0], asked.texts, knowledge) for x in images]
    groups = groups_of(asked.texts)
    for by in judged:
        for at_scale, ref in zip(measured, by.values, strict=True):
            at_scale[by.score.column] = mean_measure(values_of([ref.artifact]), groups)
    return PictureScores(
        tuple(
            AtScale(
                scale,
                scores_of(at_scale, measured[0]),
                {name: at_scale[name] for name in DECIDING if name in at_scale},
            )
            for scale, at_scale in zip(scales, measured, strict=True)
        ),
        extractor=space.name,
        created_at=datetime.now(UTC).isoformat(),
        extractor_digest=digest(space.digest, models, *(by.score.artifact for by in judged)),
    )


def thumbnails() -> ArtifactRef:
    """The reference of the features that need no training."""
    return store.put(ThumbnailFeatures.digest.encode(), "thumbnails")


def scores_of(measured: Mapping[str, Measure], before: Mapping[str, Measure]) -> dict[str, Score]:
    """Returns measures with their changes."""
    return {
        name: Score(x.value, x.low, x.high, _bounded(name, change(x, before[name])))
        for name, x in measured.items()
    }


def _bounded(name: str, moved: PairedDifference | None) -> PairedDifference | None:
    """A share cannot change by more than 1."""
    if moved is None or name not in SHARES:
        return moved
    return replace(moved, low=max(moved.low, -1.0), high=min(moved.high, 1.0))


def _asked(
    asked: PromptSet, aliases: dict[str, str], of_subject: bool = False
) -> dict[str, list[str]] | None:
    """What the judge should find; it does not know a subject of the user's own."""
    if asked.role == "instance" and not aliases:
        return None
    found = asked_in(asked.texts, aliases)
    if found is not None and asked.role == "given" and of_subject:
        del found["subject"]
    return found


def _extractor(ref: ArtifactRef) -> PictureFeatures:
    if ref.kind == "emoji-judge":
        return EmojiJudge.from_bytes(store.get(ref))
    return ThumbnailFeatures()


def _images(ref: ArtifactRef, side: int) -> NDArray[np.uint8]:
    """The images of a captioned folder, cut to the pictures' size, or of stored arrays."""
    if ref.kind == "folder":
        return load_images(str(store.get_folder(ref)), resolution=side).images
    return store.get_arrays(ref)["images"]
