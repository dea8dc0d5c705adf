"""`ddim score`: two places in, a score with its whole protocol out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ddim_core.common.foreign import Json
from ddim_core.common.versions import network_versions, score_versions
from ddim_core.decisions.trust import Doubt, doubts
from ddim_core.devices.names import CPU, card_kind
from ddim_core.features.extractor import FeatureRecord
from ddim_core.features.protocol import Protocol
from ddim_core.features.registry import ExtractorChoice
from ddim_core.images.one_by_one import NativeImages, as_stored
from ddim_core.images.sources.decode import decode
from ddim_core.images.sources.source import ALL
from ddim_core.peers.catalogue import Peer
from ddim_core.peers.numbers import Numbers
from ddim_core.reports.class_sentences import classes_said
from ddim_core.scores.per_class import PerClass
from ddim_core.scores.set_score import (
    FeatureSet,
    PairScore,
    frechet_of_pair,
    score_classes,
    score_pair,
)
from ddim_core.statistics.npz import Statistics, save_statistics
from ddim_core.statistics.reference_files import is_pickle
from tasks.cells.lookup import is_verified
from tasks.machine.device import card, settled
from tasks.score_command.request import ScoreRequest
from tasks.score_command.sets import Place, feature_set, open_place, opener

SAMPLER = (
    "steps", "eta", "variance", "spacing", "prediction_type", "clip", "guidance_scale", "dtype",
)  # fmt: skip


@dataclass(frozen=True)
class SavedStatistics:
    """What was saved of one set."""

    generated: str
    saved: str
    n_images: int | None
    n_features: int
    statistics_digest: str


@dataclass(frozen=True)
class MatrixLine:
    """The same two sets by one protocol."""

    extractor: str | None
    resize: str | None
    n_features: int
    fid: float
    fid_low: float | None
    fid_high: float | None
    kid: float
    kid_low: float | None
    kid_high: float | None
    n_images: int | None
    n_reference: int | None


@dataclass(frozen=True)
class PeerResult:
    """A peer's own numbers of two sets.

    Attributes:
        peer: Whose.
        numbers: By its names, with intervals of ours.
        protocols: By which they were taken, by extractor.
    """

    peer: Peer
    numbers: Numbers
    protocols: Mapping[str, Protocol]


@dataclass(frozen=True)
class PairResult:
    """A score with its whole protocol.

    Attributes:
        generated, reference: As named.
        scores: Of the one against the other.
        protocol: What they were taken by.
        notes: What a reader should know of the sets.
        doubts: Why not to trust the numbers.
        matrix: The same sets by every protocol, where that was asked for.
        classes: The scores of each class, likewise.
        peer: What a peer would say of them, where that was asked for.
    """

    generated: str
    reference: str
    scores: PairScore
    protocol: Protocol
    notes: list[str]
    doubts: list[Doubt]
    matrix: tuple[MatrixLine, ...] = ()
    classes: PerClass | None = None
    peer: PeerResult | None = None


def as_json(result: PairResult | SavedStatistics) -> Json:
    """Returns a result as JSON has it, the scores side by side."""
    if isinstance(result, SavedStatistics):
        return asdict(result)
    return {
        "generated": result.generated,
        "reference": result.reference,
        **(_peer_json(result.peer) if result.peer else {}),
        **asdict(result.scores.score),
        **asdict(result.scores.further),
        "statistics_digest": result.scores.statistics_digest,
        "protocol": result.protocol.flat(),
        "notes": [*result.notes, *(doubt.text for doubt in result.doubts)],
        "doubts": [{"kind": doubt.kind, "text": doubt.text} for doubt in result.doubts],
        **({"matrix": [asdict(line) for line in result.matrix]} if result.matrix else {}),
        **({"per_class": _classes(result.classes)} if result.classes else {}),
    }


def _classes(scored: PerClass) -> Json:
    """The scores of each class side by side, null with the reason where there is none."""
    lines = []
    for one in scored.classes:
        fid, share = one.fid, scored.share(one)
        lines.append({
            "class": one.name, "n_images": one.n_images, "n_reference": one.n_reference,
            "fid": fid.fid if fid else None,
            "fid_low": fid.low if fid else None, "fid_high": fid.high if fid else None,
            "fid_bias": fid.bias if fid else None, "why_no_fid": scored.why_not(one) or None,
            "share": share[0] if share else None,
            "share_low": share[1] if share else None, "share_high": share[2] if share else None,
            "reference_share": scored.reference_share(one),
        })  # fmt: skip
    return {
        "classes": lines, "shares_p_value": scored.shares_p_value(), "said": classes_said(scored),
    }  # fmt: skip


def _peer_json(found: PeerResult) -> Json:
    return {
        "as": found.peer.name,
        "as_version": found.peer.version,
        "as_scores": {name: asdict(number) for name, number in found.numbers.items()},
        "as_left_out": found.peer.left_out,
        "as_protocols": {name: told.flat() for name, told in found.protocols.items()},
    }


def run_score(request: ScoreRequest) -> PairResult | SavedStatistics:
    """Scores what was asked for; with one set alone, saves its statistics.

    Raises:
        ValueError: If a place or an extractor cannot be, or the two do not go together.
    """
    request.check()
    if request.reference is not None:
        result, _, _ = scored_pair(request, request.reference)
        return result
    choice, read = request.choice(), as_stored if request.as_stored else decode
    place = open_place(request.generated, request.split, request.resolution, read, named(choice))
    _require_effect(request, [place], place)
    with card(settled(request.device)) as device:
        features = feature_set(place, opener(choice, [place], device), device)
    return _saved(features, request.save_stats)


def scored_pair(
    request: ScoreRequest,
    reference_name: str,
    measure: Callable[[FeatureSet, FeatureSet], PairScore] = score_pair,
) -> tuple[PairResult, FeatureSet, FeatureSet]:
    """Scores what was asked for against a reference.

    Args:
        request: What was asked, checked.
        reference_name: Of the reference.
        measure: What is computed of the two sets. For the distance alone a reference is not
            looked at whose moments a file has.

    Returns:
        The result, and the sets that it is of.

    Raises:
        ValueError: If a place or an extractor cannot be, or the two do not go together.
    """
    choice, read = request.choice(), as_stored if request.as_stored else decode
    judged = open_place(request.generated, ALL, request.resolution, read, named(choice))
    against = open_place(reference_name, request.split, request.resolution, read, named(choice))
    _require_effect(request, [judged, against], against)
    for place in (judged, against):
        if request.per_class and not place.has_classes:
            raise ValueError(
                f"per-class scores need a class for each image, which {place.name} does not have; "
                "give a folder per class, a table with labels, or a cell of a grid with classes"
            )
    real = against.by_moments if measure is frechet_of_pair else against
    with card(settled(request.device)) as device:
        open_for = opener(choice, [judged, against], device)  # asked only where there are images
        generated, reference = (feature_set(place, open_for, device) for place in (judged, real))
    scores = measure(generated, reference)
    if request.save_stats is not None:
        _saved(reference, request.save_stats)
    protocol = _protocol(request, judged, generated, reference, scores.statistics_digest)
    notes = _notes(judged, against, generated, reference)
    classes = score_classes(generated, reference) if request.per_class else None
    result = PairResult(
        request.generated, reference_name, scores, protocol, notes, doubts(scores.score),
        classes=classes,
    )  # fmt: skip
    return result, generated, reference


def named(choice: ExtractorChoice | None) -> str:
    """The extractor asked for, for files that have statistics of several; "" where none is."""
    return choice.name if choice else ""


def _require_effect(request: ScoreRequest, places: list[Place], with_split: Place) -> None:
    """Refuses options that would change nothing: they would stand for what was not done."""
    names = " and ".join(place.name for place in places)
    if request.split != ALL and with_split.files is None:
        raise ValueError(f"split is {request.split!r}, but {with_split.name} has no splits")
    alone = not any(place.has_images for place in places)
    several = any(is_pickle(Path(place.name)) for place in places) or request.peer
    if alone and (request.device != CPU or (not several and request.choice() is not None)):
        raise ValueError(f"features, weights, resize and device are for images; {names} has none")
    files = [place for place in places if place.files is not None]
    asked = request.resolution is not None or (request.as_stored and not request.peer)
    if not files and asked:
        raise ValueError(f"resolution and as-stored are for files of images; {names} has none")


def _saved(features: FeatureSet, path: Path | None) -> SavedStatistics:
    assert path is not None
    save_statistics(path, features.statistics)
    digest = features.statistics.digest
    return SavedStatistics(features.name, str(path), features.count, features.dim, digest)


def _protocol(
    request: ScoreRequest,
    judged: Place,
    generated: FeatureSet,
    reference: FeatureSet,
    statistics_digest: str,
) -> Protocol:
    row, record = judged.row, generated.record or reference.record
    size = request.resolution
    prepared = f"pillow-bicubic to {size}x{size}" if size else "native"
    return Protocol(
        features=record,
        native_size=generated.native_size,
        reference_native_size=reference.native_size,
        data_resize=prepared if reference.native_size else None,
        n_images=generated.count,
        n_reference=reference.count,
        shard_size=row.shard_size if row else None,
        reference_digest=reference.digest,
        reference=Path(reference.name).name,
        split=request.split if reference.native_size else None,
        statistics_digest=statistics_digest,
        sampler={name: getattr(row, name) for name in SAMPLER} if row else {},
        seed=row.seed if row else None,
        versions=network_versions() | score_versions() | _by_card(request, record),
    )


def _by_card(request: ScoreRequest, record: FeatureRecord | None) -> dict[str, str]:
    """The kind of card that took the features, if one did: pixels are taken by none."""
    kind = card_kind(settled(request.device))
    by_network = record is None or record.extractor != "pixels"
    return {"features in float32": f"torch on {kind}"} if kind and by_network else {}


def _notes(
    judged: Place, against: Place, generated: FeatureSet, reference: FeatureSet
) -> list[str]:
    """What a reader should know before trusting the number."""
    notes = []
    for place, features in ((judged, generated), (against, reference)):
        if features.record is None:
            notes.append(f"{place.name} does not say which features it holds; they are taken to "
                         "be those of the other set")  # fmt: skip
        if place.row is not None and not is_verified(place.row):
            notes.append(f"the row of {place.name} carries no seal (an older version or another "
                         "program wrote it): it is taken unverified")  # fmt: skip
        if place.files is not None:
            notes += [f"{place.name}: {note}" for note in place.files.source.notes]
        if place.files is not None and place.files.n_otherwise:
            notes.append(_read_two_ways(place.name, place.files))
    if generated.digest is not None and generated.digest == reference.digest:
        notes.append("both sets are the same images: FID_inf, which takes them to be independent, "
                     "falls below 0")  # fmt: skip
    if generated.native_size and reference.native_size:
        if "mixed" in (generated.native_size, reference.native_size):
            notes.append("images of several native sizes are in it: the resize counts")
        elif generated.native_size != reference.native_size:
            notes.append(
                f"native sizes differ ({generated.native_size} and {reference.native_size}): the "
                "resize is part of the distance; --resolution brings both to one size first"
            )
    if against.beside:
        notes.append(f"the distance is from the moments that {against.name} has beside its images; "
                     "all else is of these images")  # fmt: skip
    if isinstance(judged.found, Statistics):
        notes.append("statistics alone do not tell their spread: the distance has no interval")
    return notes


def _read_two_ways(name: str, files: NativeImages) -> str:
    about = f"{files.n_otherwise} images of {name} are transparent or carry an orientation: "
    if files.read is as_stored:
        return about + "read as stored, as torch-fidelity and pytorch-fid do"
    return about + (
        "laid over white and turned upright; torch-fidelity and pytorch-fid do neither "
        "(--as-stored does as they do)"
    )
