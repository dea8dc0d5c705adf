"""The Inception score: how sure a classifier is of each image, and how evenly classes are met."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import log_softmax, logsumexp, rel_entr

from ddim_core.moments import check_features

SPLITS = 10
SEED = 2020


def inception_score(
    logits: ArrayLike, splits: int = SPLITS, seed: int = SEED
) -> tuple[float, float]:
    """Averages exp(mean KL(p(y|x) || p(y))) over splits: (mean, standard deviation over splits).

    The images are shuffled by RandomState(seed) and cut into equal splits, and the standard
    deviation divides by the number of splits: torch-fidelity's numbers and defaults, in float64.
    It is the spread of splits, not an error of the mean. The score grows with the size of a split:
    compare at equal counts only. It sees no reference, and a mode of perfect copies pleases it.

    Source: Salimans et al. 2016 (arXiv:1606.03498), section 4.

    Args:
        logits: [n, classes] of the generated images, n >= splits.
        splits: How many splits.
        seed: Of the shuffling.

    Returns:
        Unitless, from 1 to the number of classes.

    Raises:
        ValueError: If there are fewer images than splits, or a logit is not finite.
    """
    rows = check_features(logits, "logits").astype(np.float64)
    if not 1 <= splits <= len(rows):
        raise ValueError(
            f"splits is {splits}; with {len(rows)} images it must lie in 1..{len(rows)}"
        )
    rows = rows[np.random.RandomState(seed).permutation(len(rows))]
    log_p = log_softmax(rows, axis=1)
    edges = [i * len(rows) // splits for i in range(splits + 1)]
    scores = []
    for start, stop in pairwise(edges):
        part = log_p[start:stop]
        marginal = logsumexp(part, axis=0) - np.log(len(part))
        # p (log p - log q), with 0 log 0 = 0
        divergence = rel_entr(np.exp(part), np.exp(marginal)).sum(axis=1)
        scores.append(float(np.exp(divergence.mean())))
    return float(np.mean(scores)), float(np.std(scores))
