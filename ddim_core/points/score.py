"""Scores of generated points: the Chamfer distance with its interval, and what they say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ddim_core.decisions.row import line_name
from ddim_core.points.chamfer import chamfer_distance
from ddim_core.points.datasets import EVALUATION, stream, true_points
from ddim_core.points.specs import PointSet

Row = Mapping[str, Any]

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
    mean = float(np.mean(values))
    if len(values) < 2:
        return SeedMean(mean, None, None, list(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return SeedMean(mean, max(mean - half, 0.0), mean + half, list(values))


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


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Puts together the rows of one setting: over training seeds where there are several.

    Returns:
        One record a setting with steps, eta, variance, nfe, chamfer, chamfer_low, chamfer_high,
        worst (the largest over training seeds) and n_models; the interval is over the sampling
        seeds of the one model, or over models.
    """
    groups: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        groups.setdefault((line_name(row), row["steps"]), []).append(row)
    records = []
    for group in groups.values():
        first = group[0]
        over = seed_mean([row["chamfer"] for row in group])
        only = len(group) == 1
        records.append(
            {
                **{name: first[name] for name in ("steps", "eta", "variance", "nfe")},
                "chamfer": over.mean,
                "chamfer_low": first["chamfer_low"] if only else over.low,
                "chamfer_high": first["chamfer_high"] if only else over.high,
                "worst": max(over.values),
                "n_models": len(group),
            }
        )
    return records


def interval(value: float, low: float | None, high: float | None) -> str:
    """Writes a score with its interval."""
    if low is None or high is None:
        return f"{value:.2f} (one seed, no interval)"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def read_points(rows: Sequence[Row]) -> list[str]:
    """Says what the scores show, in sentences computed from them; intervals are 95 %."""
    first = rows[0]
    settings = summary(rows)
    best = min(settings, key=lambda record: record["chamfer"])
    failed = [record for record in settings if record["worst"] >= PASS_MARK]
    said = [
        f"Two independent true samples of {first['n_points']} points are "
        f"{interval(first['floor'], first['floor_low'], first['floor_high'])} apart: the floor. "
        f"The lowest Chamfer distance is "
        f"{interval(best['chamfer'], best['chamfer_low'], best['chamfer_high'])} at "
        f"S = {best['steps']}, {line_name(best)}."
    ]
    if first["dataset"] == "swiss-roll":
        verdict = (
            f"not met by {len(failed)} of {len(settings)} settings"
            if failed
            else f"met by all {len(settings)} settings"
        )
        said.append(f"The course's pass mark, below {PASS_MARK:g}, is {verdict}.")
    return [*said, *_noise_helps(settings), *_over_models(settings)]


def _noise_helps(settings: Sequence[Row]) -> list[str]:
    """Compares the ends of the eta range at the largest S, where their intervals are apart."""
    largest = max(record["steps"] for record in settings)
    at_s = [r for r in settings if r["steps"] == largest and r["chamfer_low"] is not None]
    at_s.sort(key=lambda record: record["eta"])
    if len(at_s) < 2:
        return []
    low, high = at_s[0], at_s[-1]
    names = f"{line_name(low)} and {line_name(high)}"
    if high["chamfer_high"] < low["chamfer_low"]:
        return [
            f"At S = {largest} the intervals of {names} are apart, with less at {line_name(high)}."
        ]
    if low["chamfer_high"] < high["chamfer_low"]:
        return [f"At S = {largest} the intervals of {names} are apart, with less at the former."]
    return [f"At S = {largest} the intervals of {names} overlap; no difference is claimed."]


def _over_models(settings: Sequence[Row]) -> list[str]:
    n_models = settings[0]["n_models"]
    if n_models < 2:
        return []
    worst = "; ".join(
        f"S = {record['steps']}, {line_name(record)}: {record['worst']:.2f}" for record in settings
    )
    return [f"The worst of {n_models} trained models at each setting: {worst}."]
