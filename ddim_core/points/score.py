"""Scores of generated points: the Chamfer distance with its interval, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.row import line_name
from ddim_core.points.chamfer import chamfer_distance
from ddim_core.points.datasets import EVALUATION, stream, true_points
from ddim_core.points.row import PointRow
from ddim_core.points.specs import PointSet

PASS_MARK = 60.0
"""The course's, for 2,048 points of the swiss roll."""

FRESH, OTHER = 0, 1
"""Draws of true points: those that generated points are compared to, and the floor's others."""


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds with its 95 % interval (Student's t); None from fewer than 2 seeds."""

    mean: float
    low: float | None
    high: float | None
    values: list[float]


def seed_mean(values: Sequence[float]) -> SeedMean:
    """Averages one score over seeds; the lower end stays at 0 or above, as the scores do."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return SeedMean(mean, None, None, list(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return SeedMean(mean, max(mean - half, 0.0), mean + half, list(values))


@dataclass(frozen=True)
class PointSetting:
    """A sampler setting over all its trained models.

    Attributes:
        chamfer, chamfer_low, chamfer_high: The interval is over the sampling seeds of the one
            model, or over models.
        worst: The largest over training seeds.
        n_models: How many.
    """

    steps: int
    eta: float
    variance: str
    nfe: int
    chamfer: float
    chamfer_low: float | None
    chamfer_high: float | None
    worst: float
    n_models: int


def fresh_points(dataset: PointSet, n: int, seed: int, draw: int = FRESH) -> NDArray[np.float32]:
    """Draws true points [n, 2] that no training saw."""
    return true_points(dataset, n, stream(seed, draw, EVALUATION))


def score_points(generated: Mapping[int, NDArray[np.float32]], dataset: PointSet) -> SeedMean:
    """Averages the Chamfer distance of generated points [n, 2], by seed, to as many fresh ones."""
    return seed_mean(
        [
            chamfer_distance(points, fresh_points(dataset, len(points), seed))
            for seed, points in generated.items()
        ]
    )


def floor(dataset: PointSet, n: int, n_pairs: int) -> SeedMean:
    """Averages the distance of two independent true samples of n points: the best to hope for."""
    pairs = {seed: fresh_points(dataset, n, seed, OTHER) for seed in range(n_pairs)}
    return score_points(pairs, dataset)


def summary(rows: Sequence[PointRow]) -> list[PointSetting]:
    """Puts together the rows of one setting: over training seeds where there are several."""
    groups: dict[tuple[str, int], list[PointRow]] = {}
    for row in rows:
        groups.setdefault((line_name(row), row.steps), []).append(row)
    settings = []
    for group in groups.values():
        first, only = group[0], len(group) == 1
        over = seed_mean([row.chamfer for row in group])
        settings.append(
            PointSetting(
                first.steps,
                first.eta,
                first.variance,
                first.nfe,
                chamfer=over.mean,
                chamfer_low=first.chamfer_low if only else over.low,
                chamfer_high=first.chamfer_high if only else over.high,
                worst=max(over.values),
                n_models=len(group),
            )
        )
    return settings


def interval(value: float, low: float | None, high: float | None) -> str:
    """Writes a score with its interval."""
    if low is None or high is None:
        return f"{value:.2f} (one seed, no interval)"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def read_points(rows: Sequence[PointRow]) -> list[str]:
    """Says what the scores show, in sentences computed from them; intervals are 95 %."""
    first = rows[0]
    settings = summary(rows)
    best = min(settings, key=lambda record: record.chamfer)
    failed = [record for record in settings if record.worst >= PASS_MARK]
    said = [
        f"The lowest Chamfer distance is "
        f"{interval(best.chamfer, best.chamfer_low, best.chamfer_high)} at "
        f"S = {best.steps}, {line_name(best)}. "
        f"Two independent true samples of {first.n_points} points are "
        f"{interval(first.floor, first.floor_low, first.floor_high)} apart: the floor."
    ]
    if first.dataset == "swiss-roll":
        verdict = (
            f"not met by {len(failed)} of {len(settings)} settings"
            if failed
            else f"met by all {len(settings)} settings"
        )
        said.append(f"The course's pass mark, below {PASS_MARK:g}, is {verdict}.")
    return [*said, *_noise_helps(settings), *_over_models(settings)]


def _noise_helps(settings: Sequence[PointSetting]) -> list[str]:
    """Compares the ends of the eta range at the largest S, where their intervals are apart."""
    largest = max(setting.steps for setting in settings)
    at_s = [
        (setting, setting.chamfer_low, setting.chamfer_high)
        for setting in sorted(settings, key=lambda setting: setting.eta)
        if setting.steps == largest
        and setting.chamfer_low is not None
        and setting.chamfer_high is not None
    ]
    if len(at_s) < 2:
        return []
    (low, low_from, low_to), (high, high_from, high_to) = at_s[0], at_s[-1]
    names = f"{line_name(low)} and {line_name(high)}"
    if high_to < low_from:
        return [
            f"At S = {largest} the intervals of {names} are apart, with less at {line_name(high)}."
        ]
    if low_to < high_from:
        return [f"At S = {largest} the intervals of {names} are apart, with less at the former."]
    return [f"At S = {largest} the intervals of {names} overlap; no difference is claimed."]


def _over_models(settings: Sequence[PointSetting]) -> list[str]:
    n_models = settings[0].n_models
    if n_models < 2:
        return []
    worst = "; ".join(
        f"S = {record.steps}, {line_name(record)}: {record.worst:.2f}" for record in settings
    )
    return [f"The worst of {n_models} trained models at each setting: {worst}."]
