"""Two sets of features or statistics in, every score that they allow out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.features.extractor import FeatureExtractor, FeatureRecord
from ddim_core.scores.cell_score import (
    CellScore,
    ScoreReference,
    groups_of,
    score_by_moments,
    score_features,
)
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import frechet_influence
from ddim_core.scores.further_scores import FurtherScores, further_scores
from ddim_core.scores.per_class import PerClass, per_class
from ddim_core.statistics.duplicates import duplicates_together
from ddim_core.statistics.npz import Statistics, statistics_of_rows
from ddim_core.statistics.rows import FeatureRows
from ddim_core.statistics.tails import carried_by


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """One side of a comparison.

    Attributes:
        name: For people.
        shards: Features [n, d] in order of image index; None where only statistics are known.
        given: The statistics, where only they are known, or where a file has them beside images
            of which they are not.
        record: What made the features; None where the file does not say.
        native_size: Height x width of the images, `mixed` if several, None if unknown.
        digest: The sha256 of the images; None where there are none.
        extractor: What made the features here; None where they were given.
        classes: The class of each image, by name; None where not all have one.
        asked: Whether these are what was asked of a model.
    """

    name: str
    shards: Sequence[NDArray[np.float32]] | None = None
    given: Statistics | None = None
    record: FeatureRecord | None = None
    native_size: str | None = None
    digest: str | None = None
    extractor: FeatureExtractor | None = None
    classes: Sequence[str] | None = None
    asked: bool = False

    def __post_init__(self) -> None:
        if self.record is None and self.given is not None:
            object.__setattr__(self, "record", self.given.record)

    @cached_property
    def statistics(self) -> Statistics:
        """Mean and covariance."""
        if self.given is not None:
            return self.given
        assert self.shards is not None
        return statistics_of_rows(FeatureRows.of(self.shards, self.name), self.record)

    @property
    def count(self) -> int | None:
        """Images; None where the file of statistics does not say."""
        return self.statistics.count

    @property
    def dim(self) -> int:
        """d, the number of features."""
        return self.shards[0].shape[1] if self.shards else self.statistics.mu.size


@dataclass(frozen=True)
class PairScore:
    """The scores of one set against another, and the digest of the other's statistics."""

    score: CellScore
    further: FurtherScores
    statistics_digest: str


def score_pair(generated: FeatureSet, reference: FeatureSet) -> PairScore:
    """Scores one set against another.

    Both with features: all of `CellScore` and `FurtherScores`. A reference of statistics only: the
    Frechet distances with their intervals. Generated statistics only: the distance alone, since
    its spread cannot be told from moments. What cannot be told is None.

    Args:
        generated, reference: The sets.

    Raises:
        ValueError: If the features of the two are known to differ, d differs, a set has fewer
            than 2 images, or a number is not finite.
    """
    _require_alike(generated, reference)
    rows = FeatureRows.of(generated.shards, generated.name) if generated.shards else None
    real = FeatureRows.of(reference.shards, reference.name) if reference.shards else None
    if rows and real and generated.shards:
        score = score_features(generated.shards, _score_reference(real, reference))
    else:
        score = _by_statistics(rows, generated, reference)
    more = FurtherScores()
    if rows and generated.extractor is not None:
        more = further_scores(generated.extractor, rows, real)
    return PairScore(score, more, reference.statistics.digest)


def _require_alike(generated: FeatureSet, reference: FeatureSet) -> None:
    if generated.record and reference.record and generated.record != reference.record:
        raise ValueError(
            f"{generated.name} and {reference.name} have features of different protocols: "
            + "; ".join(_differences(generated.record, reference.record))
        )
    if generated.dim != reference.dim:
        raise ValueError(
            f"{generated.name} has {generated.dim} features and {reference.name} {reference.dim}; "
            "both must come from one extractor, and for pixels from one size and colour"
        )


def score_classes(generated: FeatureSet, reference: FeatureSet) -> PerClass:
    """Scores each class of one set against that of the other, by the classes' names.

    Raises:
        ValueError: If a set has no features, or images without a class.
    """
    (ours, our_classes), (theirs, their_classes) = _labelled(generated), _labelled(reference)
    names = sorted({*our_classes, *their_classes})
    index = {name: i for i, name in enumerate(names)}
    labels, their_labels = (
        np.array([index[name] for name in classes], dtype=np.int64)
        for classes in (our_classes, their_classes)
    )
    found = None if generated.asked else labels
    return per_class(names, ours, labels, theirs, their_labels, found, generated.asked)


def _labelled(side: FeatureSet) -> tuple[NDArray[np.float32], Sequence[str]]:
    """A set's features, and the class of each."""
    if side.shards is None or side.classes is None:
        lacks = "features" if side.shards is None else "a class for each image"
        raise ValueError(f"per-class scores need {lacks}, which {side.name} does not have")
    return np.concatenate(side.shards), side.classes


def _differences(a: FeatureRecord, b: FeatureRecord) -> list[str]:
    pairs = {f.name: (getattr(a, f.name), getattr(b, f.name)) for f in fields(FeatureRecord)}
    return [f"{name} is {x!r} and {y!r}" for name, (x, y) in pairs.items() if x != y]


def frechet_of_pair(
    generated: FeatureSet, reference: FeatureSet, on: Float64 = ON_CPU
) -> PairScore:
    """The Frechet distance and what goes with it alone, computed by `on`; else as `score_pair`."""
    _require_alike(generated, reference)
    rows = FeatureRows.of(generated.shards, generated.name) if generated.shards else None
    score = _by_statistics(rows, generated, reference, on)
    return PairScore(score, FurtherScores(), reference.statistics.digest)


def _score_reference(real: FeatureRows, reference: FeatureSet) -> ScoreReference:
    return ScoreReference.of(real, reference.given.moments() if reference.given else None)


def _by_statistics(
    rows: FeatureRows | None, generated: FeatureSet, reference: FeatureSet, on: Float64 = ON_CPU
) -> CellScore:
    against = Reference.of(reference.statistics.moments(), on)
    n_images, n_reference, n_features = generated.count, reference.count, generated.dim
    if rows is None:
        fid = against.distance(generated.statistics.moments())
        return CellScore(n_images, n_reference, n_features, fid)
    groups = groups_of(rows)
    told = score_by_moments(rows, groups, duplicates_together(rows, groups), against, None)
    carried = carried_by(frechet_influence(rows, against))
    return replace(told, n_reference=n_reference, carried_by=carried)
