"""Scores besides the Frechet and kernel distances, where an extractor's features allow them."""

from __future__ import annotations

from dataclasses import dataclass

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.features.extractor import FeatureExtractor
from ddim_core.scores.alone.inception_score import SPLITS, inception_score_of_blocks
from ddim_core.scores.cell_score import groups_of
from ddim_core.scores.distances.cmmd import UnitRows, cmmd_interval
from ddim_core.statistics.rows import FeatureRows, places


@dataclass(frozen=True)
class FurtherScores:
    """What some extractors add; None where one cannot.

    Attributes:
        inception_score, inception_score_std: Of extractors with class logits, over 10 splits, with
            the spread between them; None with fewer than 10 images.
        cmmd, cmmd_low, cmmd_high: Of CLIP features, with the 95 % interval.
    """

    inception_score: float | None = None
    inception_score_std: float | None = None
    cmmd: float | None = None
    cmmd_low: float | None = None
    cmmd_high: float | None = None


def further_scores(
    extractor: FeatureExtractor,
    generated: FeatureRows,
    reference: FeatureRows | None,
    on: Float64 = ON_CPU,
) -> FurtherScores:
    """Scores features by what their extractor allows.

    Args:
        extractor: What made the features.
        generated: Features [n, d] of the generated images.
        reference: Features [m, d] of the real images; None where only their statistics are known.
        on: What computes what looks at all pairs.
    """
    score: tuple[float | None, float | None] = (None, None)
    if extractor.has_classes and len(generated) >= SPLITS:
        logits = (extractor.class_scores(rows) for _, rows in generated.blocks())
        score = inception_score_of_blocks(logits, len(generated))
    groups = groups_of(generated)
    if not extractor.name.startswith("clip-") or reference is None or len(groups) < 2:
        return FurtherScores(*score)
    real = FeatureRows.of(UnitRows(reference, places(len(reference))))
    return FurtherScores(*score, *cmmd_interval(UnitRows(generated, groups), real, on))
