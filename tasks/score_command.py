"""`ddim score`: two places in, a score with its whole protocol out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_core.extractors import ExtractorChoice
from ddim_core.interop import Statistics, save_statistics
from ddim_core.pair_score import FeatureSet, score_pair
from ddim_core.protocol import Protocol
from ddim_core.versions import network_versions, score_versions
from tasks.score_sets import Place, feature_set, open_place, opener

SAMPLER = (
    "steps", "eta", "variance", "spacing", "prediction_type", "clip", "guidance_scale", "dtype",
)  # fmt: skip


@dataclass(frozen=True)
class ScoreRequest:
    """What was asked; see `ddim score --help`."""

    generated: str
    reference: str | None
    features: str | None
    feature_weights: str
    resize: str
    split: str
    resolution: int | None
    save_stats: Path | None

    def choice(self) -> ExtractorChoice | None:
        """The extractor asked for; None leaves it to what is compared.

        Raises:
            ValueError: If it cannot be.
        """
        if self.features is None and not (self.feature_weights or self.resize):
            return None
        return ExtractorChoice(self.features or "inception-v3", self.feature_weights, self.resize)


def run_score(request: ScoreRequest) -> dict[str, Any]:
    """Scores what was asked for.

    Returns:
        The scores (fields of `CellScore` and `FurtherScores`), `generated` and `reference` as
        named, `protocol` flat, and `notes`; with one set alone, what was saved of it.

    Raises:
        ValueError: If a place or an extractor cannot be, or the two do not go together.
    """
    if request.reference is None and request.save_stats is None:
        raise ValueError("one set alone has no distance; give a second one, or --save-stats FILE")
    if request.save_stats is not None and request.save_stats.suffix != ".npz":
        raise ValueError(f"save_stats is {str(request.save_stats)!r}; its name must end in .npz")
    choice = request.choice()
    alone = request.reference is None
    judged = open_place(request.generated, request.split if alone else "all", request.resolution)
    if request.reference is None:
        return _saved(feature_set(judged, opener(choice, [judged])), request.save_stats)
    against = open_place(request.reference, request.split, request.resolution)
    open_for = opener(choice, [judged, against])  # asked only where there are images
    generated, reference = feature_set(judged, open_for), feature_set(against, open_for)
    score = score_pair(generated, reference)
    if request.save_stats is not None:
        _saved(reference, request.save_stats)
    protocol = _protocol(request, judged, generated, reference, score["statistics_digest"])
    return {
        "generated": request.generated,
        "reference": request.reference,
        **score,
        "protocol": protocol.flat(),
        "notes": _notes(judged, against, generated, reference),
    }


def _saved(features: FeatureSet, path: Path | None) -> dict[str, Any]:
    assert path is not None
    save_statistics(path, features.statistics)
    return {
        "generated": features.name,
        "saved": str(path),
        "n_images": features.count,
        "n_features": features.dim,
        "statistics_digest": features.statistics.digest,
    }


def _protocol(
    request: ScoreRequest,
    judged: Place,
    generated: FeatureSet,
    reference: FeatureSet,
    statistics_digest: str,
) -> Protocol:
    row = judged.row or {}
    prepared = f"pillow-bicubic to {request.resolution}x{request.resolution}"
    return Protocol(
        features=generated.record or reference.record,
        native_size=generated.native_size,
        reference_native_size=reference.native_size,
        data_resize=prepared if request.resolution else "native",
        n_images=generated.count,
        n_reference=reference.count,
        shard_size=row.get("shard_size"),
        reference_digest=reference.digest,
        reference=Path(reference.name).name,
        split=request.split,
        statistics_digest=statistics_digest,
        sampler={name: row[name] for name in SAMPLER if name in row},
        seed=row.get("seed"),
        versions=network_versions() | score_versions(),
    )


def _notes(
    judged: Place, against: Place, generated: FeatureSet, reference: FeatureSet
) -> list[str]:
    """What a reader should know before trusting the number."""
    notes = []
    for place, features in ((judged, generated), (against, reference)):
        if features.record is None:
            notes.append(f"{place.name} does not say which features it holds; they are taken as "
                         "those of the other set")  # fmt: skip
    if generated.native_size and reference.native_size:
        if "mixed" in (generated.native_size, reference.native_size):
            notes.append("images of several native sizes are in it: the resize counts")
        elif generated.native_size != reference.native_size:
            notes.append(
                f"native sizes differ ({generated.native_size} and {reference.native_size}): the "
                "resize is part of the distance; --resolution brings both to one size first"
            )
    if isinstance(judged.found, Statistics):
        notes.append("statistics alone do not tell their spread: the distance has no interval")
    return notes
