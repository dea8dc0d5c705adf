"""Pictures of a base with and without a LoRA in, their measures with paired intervals out."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.digest import digest
from ddim_core.images.load import load_images
from ddim_core.lora.scoring.likeness import ClipModel, DinoModel, ThumbnailFeatures
from ddim_core.lora.scoring.measures import MEANINGS, Knowledge, PictureFeatures, take_measures
from ddim_core.lora.scoring.scorecard import Measure, change
from ddim_core.lora.scoring.specs import PRIOR, PromptSet
from ddim_core.reports.lora_sentences import SHARES
from ddim_core.statistics.paired import PairedDifference
from ddim_core.text2image.judge import EmojiJudge, asked_in
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@cached_task
def score_pictures(
    asked: PromptSet,
    scales: list[float],
    drawn: list[ArtifactRef],
    known: dict[str, ArtifactRef | None],
    aliases: dict[str, str],
    extractor: ArtifactRef,
    models: dict[str, str],
    location: dict[str, str],
) -> dict[str, Any]:
    """Takes all measures of a prompt set at every scale, each against the first one, paired.

    Args:
        asked: The prompt set.
        scales: The first is 0, the base alone.
        drawn: The pictures at each scale, of one noise.
        known: By name what they are compared with (see `Knowledge`): captioned folders or arrays
            of images; `training` must be there.
        aliases: Words of prompts that stand for a subject the judge knows.
        extractor: The judge, or the thumbnails.
        models: Digests of `clip` and `dino`, where they are given.
        location: Their folders.

    Returns:
        `scores`, one for each scale: by measure its value, interval and change.
    """
    images = [store.get_arrays(ref)["images"] for ref in drawn]
    space = _extractor(extractor)
    side = images[0].shape[1]
    found = {name: _images(ref, side) for name, ref in known.items()}
    training = found["training"]
    assert training is not None
    knowledge = Knowledge(
        extractor=space,
        training=training,
        real=found.get("real"),
        style=found.get("style"),
        base=found.get("base"),
        subject=found.get("subject"),
        asked=_asked(asked, aliases) if isinstance(space, EmojiJudge) else None,
        prior=asked.role in PRIOR,
        clip=ClipModel(Path(location["clip"])) if "clip" in models else None,
        dino=DinoModel(Path(location["dino"])) if "dino" in models else None,
    )
    measured = [take_measures(x, images[0], asked.texts, knowledge) for x in images]
    return {
        "scores": [
            {"scale": scale, "measures": _plain(at_scale, measured[0])}
            for scale, at_scale in zip(scales, measured, strict=True)
        ],
        "extractor": space.name,
        "created_at": datetime.now(UTC).isoformat(),
        "extractor_digest": digest(space.digest, models),
    }


def thumbnails() -> ArtifactRef:
    """The reference of the features that need no training."""
    return store.put(ThumbnailFeatures.digest.encode(), "thumbnails")


def _plain(measured: dict[str, Measure], before: dict[str, Measure]) -> dict[str, Any]:
    """Values and changes as JSON holds them; every measure is there, None where not taken."""
    out: dict[str, Any] = {}
    for name in MEANINGS:
        if name not in measured:
            out[name] = None
            continue
        measure = measured[name]
        moved = change(measure, before[name])
        out[name] = {
            "value": measure.value,
            "low": measure.low,
            "high": measure.high,
            "change": None if moved is None else _change(name, moved),
        }
    return out


def _change(name: str, moved: PairedDifference) -> dict[str, float]:
    """As plain values; a share cannot change by more than 1."""
    found = asdict(moved)
    if name in SHARES:
        found |= {"low": max(moved.low, -1.0), "high": min(moved.high, 1.0)}
    return found


def _asked(asked: PromptSet, aliases: dict[str, str]) -> dict[str, list[str]] | None:
    """What the judge should find; it does not know a subject of the user's own."""
    if asked.role == "instance" and not aliases:
        return None
    return asked_in(asked.texts, aliases)


def _extractor(ref: ArtifactRef) -> PictureFeatures:
    if ref["kind"] == "emoji-judge":
        return EmojiJudge.from_bytes(store.get(ref))
    return ThumbnailFeatures()


def _images(ref: ArtifactRef | None, side: int) -> NDArray[np.uint8] | None:
    """The images of a captioned folder, cut to the pictures' size, or of stored arrays."""
    if ref is None:
        return None
    if ref["kind"] == "folder":
        return load_images(str(store.get_folder(ref)), resolution=side).images
    return store.get_arrays(ref)["images"]
