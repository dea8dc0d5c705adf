"""Data sets of points in the plane, each in one fixed frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import MT19937, RandomState, SeedSequence
from numpy.typing import NDArray

from ddim_core.points.specs import PointSet

Floats = NDArray[np.float64]

STANDARD_DEVIATION = 2.0
"""Of every data set: the root mean square of both coordinates about the centre."""

TRAINING, EVALUATION = 0, 1
"""Streams of draws that share no point."""


@dataclass(frozen=True)
class Frame:
    """Where a data set's raw points lie.

    Constants of the distribution, not of a sample: samples that are each centred and scaled by
    themselves lie on curves that do not meet.

    Attributes:
        centre: Mean of each coordinate.
        spread: Root mean square over both coordinates about the centre.
    """

    centre: tuple[float, float]
    spread: float


def true_points(dataset: PointSet, n: int, random: RandomState) -> NDArray[np.float32]:
    """Draws n independent points of a data set, centred, with standard deviation 2.

    Returns:
        float32 [n, 2].

    Raises:
        ValueError: If n is below 1 or there is no such data set.
    """
    if n < 1:
        raise ValueError(f"n is {n}; draw at least 1 point")
    if dataset not in DATA_SETS:
        raise ValueError(f"dataset is {dataset!r}; it must be one of {', '.join(DATA_SETS)}")
    draw, frame = DATA_SETS[dataset]
    points = (draw(n, random) - frame.centre) * (STANDARD_DEVIATION / frame.spread)
    return points.astype(np.float32)


def stream(seed: int, index: int, purpose: int) -> RandomState:
    """Returns the random stream of draw number `index`: a function of its arguments alone.

    Args:
        seed, index: At least 0.
        purpose: `TRAINING` or `EVALUATION`.
    """
    return RandomState(MT19937(SeedSequence([seed, index, purpose])))


def _swiss_roll(n: int, random: RandomState) -> Floats:
    """The roll seen from its end: (t cos t, t sin t), t from 1.5 pi to 4.5 pi, thinner halfway."""
    from sklearn.datasets import make_swiss_roll

    points, _ = make_swiss_roll(n, noise=0.0, hole=True, random_state=random)
    return np.asarray(points[:, [0, 2]])


def _s_curve(n: int, random: RandomState) -> Floats:
    from sklearn.datasets import make_s_curve

    points, _ = make_s_curve(n, noise=0.0, random_state=random)
    return np.asarray(points[:, [0, 2]])


def _moons(n: int, random: RandomState) -> Floats:
    """scikit-learn's two moons with noise 0.05, at random places instead of even ones."""
    angle = random.uniform(0.0, math.pi, n)
    lower = random.uniform(size=n) < 0.5
    x = np.where(lower, 1.0 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return np.stack([x, y], axis=1) + random.normal(0.0, 0.05, (n, 2))


def _circles(n: int, random: RandomState) -> Floats:
    """Radii 1 and 0.5, noise 0.04; at random places instead of scikit-learn's even ones."""
    angle = random.uniform(0.0, 2.0 * math.pi, n)
    radius = np.where(random.uniform(size=n) < 0.5, 0.5, 1.0)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(points + random.normal(0.0, 0.04, (n, 2)))


def _checkerboard(n: int, random: RandomState) -> Floats:
    """The dark squares, side 1, of a board of 4 x 4 in [-2, 2]^2."""
    square = random.randint(0, 8, n)
    row = square // 2
    column = 2 * (square % 2) + row % 2
    return np.stack([column, row], axis=1) - 2.0 + random.uniform(size=(n, 2))


def _gaussians(n: int, random: RandomState) -> Floats:
    """Eight of standard deviation 0.3 on a ring of radius 4."""
    angle = random.randint(0, 8, n) * (math.pi / 4)
    ring = 4.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return np.asarray(ring + random.normal(0.0, 0.3, (n, 2)))


# Means and spreads are integrals over each distribution; those of the roll and of the S by
# quadrature (its three turns weigh 3/8, 2/8 and 3/8).
DATA_SETS: dict[PointSet, tuple[Callable[[int, RandomState], Floats], Frame]] = {
    "swiss-roll": (_swiss_roll, Frame((3.0, 1.0 / math.pi), 6.631356903394773)),
    "moons": (_moons, Frame((0.5, 0.25), 0.7068203851814863)),
    "circles": (_circles, Frame((0.0, 0.0), math.sqrt((1.0 + 0.25) / 4 + 0.04**2))),
    "s-curve": (_s_curve, Frame((0.0, 0.0), 1.1010025389567428)),
    "checkerboard": (_checkerboard, Frame((0.0, 0.0), math.sqrt(16 / 12))),
    "gaussians": (_gaussians, Frame((0.0, 0.0), math.sqrt(8.0 + 0.3**2))),
}
