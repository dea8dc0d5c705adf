"""Scores besides the Frechet and kernel distances, where an extractor's features allow them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddim_core.cmmd import cmmd_interval, unit
from ddim_core.features import FeatureExtractor
from ddim_core.inception_score import SPLITS, inception_score


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
    groups: Sequence[NDArray[np.float32]],
    reference: NDArray[np.float32] | None,
) -> FurtherScores:
    """Scores features by what their extractor allows.

    Args:
        extractor: What made the features.
        groups: Generated features [n, d], cut as the jackknife leaves them out.
        reference: Features [m, d] of the real images; None where only their statistics are known.
    """
    score: tuple[float | None, float | None] = (None, None)
    generated = np.concatenate(groups)
    if len(generated) >= SPLITS:
        logits = extractor.class_scores(generated)
        score = (None, None) if logits is None else inception_score(logits)
    if not extractor.name.startswith("clip-") or reference is None or len(groups) < 2:
        return FurtherScores(*score)
    return FurtherScores(*score, *cmmd_interval([unit(group) for group in groups], unit(reference)))
