"""What a LoRA gained and what it cost: measures of pictures with paired intervals over prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.precision_recall import Manifold
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import FeatureMoments, leave_one_out, merge
from ddim_core.statistics.paired import PairedDifference, paired_difference

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
MOST_GROUPS = 24
FEWEST_PROMPTS = 5
COPY_LEVEL = 0.05
NEIGHBOURS = 3
SAME = 1.0 / 255.0  # root mean square between two images that are one: less than a grey level


@dataclass(frozen=True)
class Measure:
    """One measure of one set of pictures.

    Attributes:
        value: On all pictures.
        low, high: Its 95 % interval; None where there are too few pictures to leave any out.
        loo: The value without each group of pictures, for `change`.
        sizes: Pictures per group.
    """

    value: float
    low: float | None
    high: float | None
    loo: tuple[float, ...]
    sizes: tuple[int, ...]


def groups_of(prompts: Sequence[str]) -> NDArray[np.int64]:
    """Assigns pictures to the groups that are left out in turn, int64 [n].

    Pictures of one prompt are alike, so a prompt's pictures stay together, in at most 24 groups.
    With fewer than 5 prompts every picture goes its own way, and an interval then speaks of other
    noise for the same prompts only.
    """
    distinct = list(dict.fromkeys(prompts))
    if len(distinct) < FEWEST_PROMPTS:
        return np.arange(len(prompts)) % MOST_GROUPS
    places = {prompt: i % MOST_GROUPS for i, prompt in enumerate(distinct)}
    return np.array([places[prompt] for prompt in prompts])


def mean_measure(values: ArrayLike, groups: NDArray[np.int64]) -> Measure:
    """The mean of one number per picture, [n]."""
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{int((~np.isfinite(x)).sum())} of {x.size} values are not finite")
    return _measure(groups, lambda kept: float(x[kept].mean()))


def share_measure(
    holds: NDArray[np.bool_] | NDArray[np.float64], groups: NDArray[np.int64]
) -> Measure:
    """The share of pictures of which something holds, [n].

    Where all pictures agree leaving some out shows no spread; the interval is then, and at least,
    Wilson's for n pictures.
    """
    found = mean_measure(holds, groups)
    least, most = _wilson(found, 0.05)
    low = min(least, found.value if found.low is None else found.low)
    high = max(most, found.value if found.high is None else found.high)
    return replace(found, low=max(low, 0.0), high=min(high, 1.0))


def frechet_measure(
    features: NDArray[np.float32], reference: Reference, groups: NDArray[np.int64]
) -> Measure:
    """The Frechet distance of pictures, by their features [n, d], to a reference.

    Comparable only at equal n, features and reference: what counts is the change with the scale.
    """
    parts = [FeatureMoments.from_features(features[groups == g]) for g in np.unique(groups)]
    sizes = tuple(part.count for part in parts)
    value = reference.distance(merge(parts))
    if len(parts) < 3:
        return Measure(value, None, None, (), sizes)
    loo = tuple(reference.resampled_distance(rest) for rest in leave_one_out(parts))
    found = jackknife(value, loo, sizes)
    return Measure(value, max(found.low, 0.0), found.high, loo, sizes)


def change(measure: Measure, before: Measure) -> PairedDifference | None:
    """measure - before, paired: both have their pictures of the same prompts and noise.

    None where there are too few pictures for an interval.
    """
    if not measure.loo:
        return None
    return paired_difference(measure.loo, before.loo, measure.value, before.value, measure.sizes)


def share_change(share: Measure, before: Measure, level: float) -> tuple[float, float]:
    """The interval of share - before that both Wilson intervals of 1 - level give.

    No interval of a change should be narrower: where all pictures agree the jackknife sees no
    spread. That the pictures are paired is not made use of, so it is wide where they agree.

    Source: Newcombe 1998 (Statistics in Medicine 17:873), method 10 at a correlation of 0.
    """
    (low, high), (low_before, high_before) = _wilson(share, level), _wilson(before, level)
    value = share.value - before.value
    down = np.hypot(share.value - low, high_before - before.value)
    up = np.hypot(high - share.value, before.value - low_before)
    return value - float(down), value + float(up)


def spread_within(features: NDArray[np.float32], prompts: Sequence[str]) -> Floats:
    """For every picture its mean distance to the other pictures of its prompt, [n]; 0 is collapse.

    Raises:
        ValueError: If a prompt has one picture only.
    """
    x = features.astype(np.float64)
    asked = np.asarray(prompts)
    out = np.empty(len(x))
    for prompt in dict.fromkeys(prompts):
        rows = np.flatnonzero(asked == prompt)
        if len(rows) < 2:
            raise ValueError(f"{prompt!r} has 1 picture; diversity needs at least 2 of a prompt")
        out[rows] = _distances(x[rows], x[rows]).sum(axis=1) / (len(rows) - 1)
    return out


def drift(
    features: NDArray[np.float32], before: NDArray[np.float32], prompts: Sequence[str]
) -> Floats:
    """How far every picture moved from the base's picture of the same prompt and noise, [n].

    In units of the base's own mean distance between two pictures of one prompt: 0 is untouched,
    1 as different as another draw.
    """
    moved = np.linalg.norm(features.astype(np.float64) - before.astype(np.float64), axis=1)
    unit = float(spread_within(before, prompts).mean())
    if unit == 0.0:
        raise ValueError("the base draws one and the same picture for each prompt; give it noise")
    return moved / unit


def likeness(features: NDArray[np.float32], subject: NDArray[np.float32]) -> Floats:
    """For every picture its mean cosine to the images of the subject, [n] in [-1, 1].

    Source: Ruiz et al. 2022 (arXiv:2208.12242), section 4.2: CLIP-I and DINO, by the features.
    """
    cosines = _unit(features.astype(np.float64)) @ _unit(subject.astype(np.float64)).T
    return cosines.mean(axis=1)


def best_correlation(images: NDArray[np.uint8], subject: NDArray[np.uint8]) -> Floats:
    """For every picture the largest correlation of its edges with an image of the subject's, [n].

    Edges, |difference to the right| + |difference below| summed over colours, because a plain
    correlation of pixels is mostly one of background colours.
    """

    def edges(x: NDArray[np.uint8]) -> Floats:
        pixels = x.astype(np.float64)
        across = np.abs(np.diff(pixels, axis=2))[:, :-1].sum(axis=3)
        down = np.abs(np.diff(pixels, axis=1))[:, :, :-1].sum(axis=3)
        flat = (across + down).reshape(len(x), -1)
        return _unit(flat - flat.mean(axis=1, keepdims=True))

    return (edges(images) @ edges(subject).T).max(axis=1)


def nearest(x: ArrayLike, training: ArrayLike) -> Floats:
    """The distance of every row of x to the nearest training row, [n]."""
    return _distances(_flat(x), _flat(training)).min(axis=1)


def nearest_others(training: ArrayLike) -> Floats:
    """The distance of every training row to the nearest other one, [n].

    Raises:
        ValueError: If there is one row only.
    """
    rows = _flat(training)
    if len(rows) < 2:
        raise ValueError("there is 1 training image; its nearest other one needs at least 2")
    distances = _distances(rows, rows)
    np.fill_diagonal(distances, np.inf)
    return distances.min(axis=1)


def copied(distances: Floats, real: Floats) -> Floats:
    """Whether a picture lies nearer to a training image than 95 % of unseen real images do, [n].

    A model that copies nothing has a mean of about 0.05 here; one that has learnt its training
    images by heart comes to 1.

    Args:
        distances: From `nearest`, of the generated pictures.
        real: The same figure of held-out real images (or `nearest_others`).
    """
    return (distances < np.quantile(real, COPY_LEVEL)).astype(np.float64)


def seen(images: ArrayLike, training: ArrayLike) -> Flags:
    """Whether an image is one of the training images, bool [n]: uint8 [n, h, w, 3] of one size."""
    x = _flat(images)
    return np.asarray(nearest(images, training) < SAME * np.sqrt(x.shape[1]))


def distinct(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns uint8 images [n, h, w, 3] in their order without those that an earlier one is."""
    rows = _flat(images)
    same = _distances(rows, rows) < SAME * np.sqrt(rows.shape[1])
    return images[~np.tril(same, -1).any(axis=1)]


def broken(features: ArrayLike, before: ArrayLike, known: Sequence[ArrayLike]) -> Flags:
    """Whether a picture lies outside the manifold of what is whole, bool [n].

    Whole are the real images and the base's own pictures; their manifold is the union of the balls
    around them that reach to the third nearest other. Diversity grows with variety and with decay
    alike: of pictures that vary few lie outside, of such that dissolve most.

    Source: Kynkaanniemi et al. 2019 (arXiv:1904.06991), eq. 1: this is 1 - precision, but that a
    picture does not count as near to the base's picture of its own noise.

    Args:
        features: Of the pictures, [n, d].
        before: Of the base's pictures of the same noise, [n, d].
        known: Of sets of real images, each [m, d]; what stands in several counts once.
    """
    x, own = _flat(features), _flat(before)
    whole = np.concatenate([own, np.unique(np.concatenate([*map(_flat, known)]), axis=0)])
    k = min(NEIGHBOURS, len(whole) - 1)
    squared = _distances(x, whole) ** 2
    squared[np.arange(len(x)), np.arange(len(x))] = np.inf
    inside: Flags = squared <= Manifold.of(whole, k).radii(k)
    return ~np.asarray(inside.any(axis=1))


def fallen(values: Floats, before: Floats) -> Flags:
    """Whether a picture's value lies below that of 95 % of the base's own pictures, bool [n]."""
    return np.asarray(values < np.quantile(before, COPY_LEVEL))


def usable(gained: Floats, *faults: Flags) -> Floats:
    """What each picture gains that can be used, [n]: nothing where it has a fault, and what it
    loses in any case."""
    return np.where(np.any(faults, axis=0), np.minimum(gained, 0.0), gained)


def _measure(groups: NDArray[np.int64], statistic: Callable[[NDArray[np.bool_]], float]) -> Measure:
    names, counts = np.unique(groups, return_counts=True)
    value, sizes = statistic(np.ones(len(groups), dtype=bool)), tuple(int(n) for n in counts)
    if len(names) < 2:
        return Measure(value, None, None, (), sizes)
    loo = tuple(statistic(groups != name) for name in names)
    found = jackknife(value, loo, sizes)
    return Measure(value, found.low, found.high, loo, sizes)


def _wilson(share: Measure, level: float) -> tuple[float, float]:
    from scipy.stats import binomtest

    n = sum(share.sizes)
    found = binomtest(round(share.value * n), n).proportion_ci(1.0 - level, method="wilson")
    return float(found.low), float(found.high)


def _distances(a: Floats, b: Floats) -> Floats:
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squared, 0.0))


def _flat(x: ArrayLike) -> Floats:
    rows = np.asarray(x)
    scale = 255.0 if rows.dtype == np.uint8 else 1.0
    return rows.reshape(len(rows), -1).astype(np.float64) / scale


def _unit(x: Floats) -> Floats:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms == 0.0, 1.0, norms)
