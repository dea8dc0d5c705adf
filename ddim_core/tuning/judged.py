"""How good a tuned list is on images that it was not tuned on, and when not to trust it.

The figures are means of one value an image (`aims`): distances from the long run, or an FID."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddim_core.tuning.evaluations import Distances
from ddim_core.tuning.search import Found

Z = 1.959964  # of a normal 95 % interval
GAP = 0.1  # of the distance: a larger gap from tuned to fresh images is told
LONG = 0.2  # of the tuned distance: a long run that moves by more when doubled is told
BY_DISTANCE = ("farther from the long run", "nearer to the long run")
BY_FID = ("worse by FID", "better by FID")
LEAST_IMAGES = 16  # to tune on: fewer are told whatever they show


@dataclass(frozen=True)
class Apart:
    """A mean distance, or a mean difference of distances, with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """A tuned list on fresh images.

    Attributes:
        tuned, stock: Distance of its run, and of the sampler as it stands, from the long run; or
            their FIDs.
        gain: Stock minus tuned, image by image.
        on_tuning: The figure on the images that it was tuned on.
        gap: Fresh minus these; two sets of images.
    """

    tuned: Apart
    stock: Apart
    gain: Apart
    on_tuning: Apart
    gap: Apart


def mean_with_interval(values: Distances) -> Apart:
    """Returns the mean of values of independent images with its normal 95 % interval."""
    mean, half = float(np.mean(values)), Z * _error(values)
    return Apart(mean, mean - half, mean + half)


def judge(on_tuning: Distances, tuned: Distances, stock: Distances) -> Judged:
    """Judges a tuned list by values of an aim, an image each.

    Args:
        on_tuning: Of the images that it was tuned on.
        tuned, stock: Of fresh images, image by image the same.
    """
    gap = float(np.mean(tuned) - np.mean(on_tuning))
    half = Z * math.hypot(_error(tuned), _error(on_tuning))
    return Judged(
        tuned=mean_with_interval(tuned),
        stock=mean_with_interval(stock),
        gain=mean_with_interval(stock - tuned),
        on_tuning=mean_with_interval(on_tuning),
        gap=Apart(gap, gap - half, gap + half),
    )


def warnings(
    judged: Judged, found: Found, moved: float, long_steps: int, n_images: int, n_budget: float,
    ignores_time: bool, n_features: int | None = None,
) -> list[str]:  # fmt: skip
    """Says what speaks against a tuned list, a sentence each.

    Args:
        judged, found: What came of it.
        moved: How far doubling the long run to `long_steps` moved its ends.
        n_images: It was tuned on.
        n_budget: Network calls an image that the search was given.
        ignores_time: The network answers alike at all timesteps.
        n_features: The figures are FIDs in so many; None where they are distances.
    """
    worse, better = BY_DISTANCE if n_features is None else BY_FID
    said = []
    least, few, other = LEAST_IMAGES, "few", ""
    if n_features is not None:
        least, few = 2 * n_features, f"few for an FID in {n_features} features"
        other = ", or take --distance features"
    if n_images < least:
        said.append(
            f"It was tuned on {n_images} images, which are {few}: a list can be fitted to their "
            f"noise; give at least {least}{other}."
        )
    if judged.gap.low > 0.0 and judged.gap.mean > GAP * judged.on_tuning.mean:
        said.append(
            f"On fresh images it is {judged.gap.mean / judged.on_tuning.mean:.0%} {worse} than on "
            "those that it was tuned on: it is fitted to them in part; tune on more images."
        )
    if judged.gain.high < 0.0:
        said.append(f"On fresh images it is {worse} than the sampler as it stands: do not take it.")
    elif judged.gain.low <= 0.0:
        said.append(f"On fresh images it is not proven {better} than the sampler as it stands.")
    if moved > LONG * found.distance and n_features is None:
        said.append(
            "The long run is too short for it: the last doubling, "
            f"to {long_steps} steps, moved its ends by {moved:.3g}, which is not little beside the "
            f"{found.distance:.3g} that the tuned run is away."
        )
    if not found.finished:
        said.append(
            f"The budget of {n_budget:g} network calls an image was spent before the search had "
            "ended; a larger one may find a better list."
        )
    if ignores_time:
        said.append(
            "The network answers alike at all timesteps: it is told of them and does not heed "
            "them, so that the list matters to the solver alone."
        )
    return said


def serves(known: Distances, tuned: Distances) -> Apart:
    """Returns how much worse a list that was found elsewhere is than the list found here, image by
    image on fresh images, as a share of the latter's figure.

    Args:
        known, tuned: Their values.
    """
    apart, own = mean_with_interval(known - tuned), float(np.mean(tuned))
    return Apart(apart.mean / own, apart.low / own, apart.high / own)


def joined(chunks: Sequence[Distances]) -> Distances:
    """Returns the distances of all chunks, one after another."""
    return np.concatenate(list(chunks))


def _error(values: Distances) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
