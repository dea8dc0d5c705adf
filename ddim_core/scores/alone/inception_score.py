"""The Inception score: how sure a classifier is of each image, and how evenly classes are met."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.statistics.moments import check_features

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
    rows = check_features(logits, "logits")
    return inception_score_of_blocks([rows], len(rows), splits, seed)


def inception_score_of_blocks(
    blocks: Iterable[NDArray[Any]], n: int, splits: int = SPLITS, seed: int = SEED
) -> tuple[float, float]:
    """`inception_score` of logits that come in blocks [n_i, classes], n rows in all; no more than
    one block is in memory.

    Per split, mean KL(p(y|x) || p(y)) = mean_x sum_y p(y|x) log p(y|x) - sum_y p(y) log p(y).
    """
    from scipy.special import log_softmax, xlogy

    if not 1 <= splits <= n:
        raise ValueError(f"splits is {splits}; with {n} images it must lie in 1..{n}")
    edges = np.array([i * n // splits for i in range(splits + 1)])
    split_of = np.empty(n, dtype=np.int64)
    split_of[np.random.RandomState(seed).permutation(n)] = np.repeat(
        np.arange(splits), np.diff(edges)
    )
    own, shared, start = np.zeros(splits), np.zeros((splits, 1)), 0
    for block in blocks:
        log_p = log_softmax(check_features(block, "logits").astype(np.float64), axis=1)
        p, chosen = np.exp(log_p), split_of[start : start + len(log_p)]
        np.add.at(own, chosen, (p * log_p).sum(axis=1))
        members = (chosen == np.arange(splits)[:, None]).astype(np.float64)
        shared = shared + members @ p
        start += len(log_p)
    sizes = np.diff(edges)
    marginal = shared / sizes[:, None]
    scores = np.exp(own / sizes - xlogy(marginal, marginal).sum(axis=1))
    return float(scores.mean()), float(scores.std())
