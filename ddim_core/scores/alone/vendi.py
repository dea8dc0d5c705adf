"""The Vendi score: how many different images a set is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.rows import FeatureRows

MOST_SPECTRUM = 1024  # images or features, whichever are fewer: an eigen-decomposition a group


class Vendi(NamedTuple):
    """The score with its 95 % interval; None where it cannot be told."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


def vendi_score(features: FeatureRows, groups: Sequence[slice]) -> Vendi:
    """The effective number of different images, by the cosine between their features.

        V = exp(-sum_k lambda_k log lambda_k),   lambda the eigenvalues of (1/n) sum_i u_i u_i^T

    with u_i the features of unit length: from 1 (all alike) to n or d (all orthogonal). It grows
    with n: compare at equal counts. It sees no reference, and noise pleases it.

    Source: Friedman and Dieng 2023 (arXiv:2210.02410); their `vendi-score`'s `score_dual`, and
    `compute_vendi_score` of dgm-eval, which takes it class by class.

    The interval is of another draw of as many images: the jackknife over groups, of log V.

    Memory: three matrices [d, d], or [n, n] where there are fewer images than features.

    Args:
        features: [n, d].
        groups: Consecutive slices that cover the rows.

    Returns:
        Nothing where a row is 0 and has no direction, or min(n, d) exceeds 1,024; no interval
        where there are fewer than 2 groups.
    """
    n = len(features)
    if min(n, features.columns) > MOST_SPECTRUM or not _all_have_directions(features):
        return Vendi()
    matrices = (_by_gram if n <= features.columns else _by_covariance)(features, groups)
    entropy = _entropy(next(matrices))
    value = float(np.exp(entropy))
    if len(groups) < 2:
        return Vendi(value)
    sizes = [group.stop - group.start for group in groups]
    found = jackknife(entropy, [_entropy(one) for one in matrices], sizes)
    return Vendi(value, float(np.exp(found.low)), float(np.exp(found.high)))


def _entropy(similarities: Floats) -> float:
    eigenvalues = np.linalg.eigvalsh(similarities)
    positive = eigenvalues[eigenvalues > 0.0]
    return float(-(positive * np.log(positive)).sum())


def _all_have_directions(features: FeatureRows) -> bool:
    return all(rows.any(axis=1).all() for _, rows in features.blocks())


def _unit(features: FeatureRows, start: int, stop: int) -> Floats:
    rows = features.read(start, stop).astype(np.float64, order="C")  # whose bits do not vary
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _by_covariance(features: FeatureRows, groups: Sequence[slice]) -> Iterator[Floats]:
    """(1/n) sum_i u_i u_i^T [d, d] of all rows, and then without each group."""
    n = len(features)
    whole = np.zeros((features.columns, features.columns))
    for group in groups:
        whole += _products(features, group)
    yield whole / n
    for group in groups:
        yield (whole - _products(features, group)) / (n - group.stop + group.start)


def _products(features: FeatureRows, group: slice) -> Floats:
    made = np.zeros((features.columns, features.columns))
    for start in range(group.start, group.stop, 4096):
        rows = _unit(features, start, min(start + 4096, group.stop))
        made += rows.T @ rows
    return made


def _by_gram(features: FeatureRows, groups: Sequence[slice]) -> Iterator[Floats]:
    """u_i.u_j / n [n, n], which has the same eigenvalues but zeros; fewer where n <= d."""
    n = len(features)
    rows = _unit(features, 0, n)
    products = rows @ rows.T
    yield products / n
    for group in groups:
        stay = np.r_[0 : group.start, group.stop : n]
        yield products[np.ix_(stay, stay)] / len(stay)
