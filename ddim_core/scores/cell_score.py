"""All scores of one cell from its features, each with what makes it a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.scores.alone.vendi import vendi_score
from ddim_core.scores.density_coverage import NEIGHBOURS, DensityCoverage, Neighbourhoods
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import (
    MANY_FEATURES,
    frechet_influence,
    frechet_score,
    moments_of,
)
from ddim_core.scores.distances.kernel_score import KernelSums
from ddim_core.scores.precision_recall import Coverage, Manifold
from ddim_core.statistics.duplicates import Copies, CopyCount, Together, duplicates_together
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.statistics.pairs import Looks, look_at_pairs
from ddim_core.statistics.rows import FeatureRows
from ddim_core.statistics.tails import carried_by

# Groups of the jackknife: with few the spread itself is known badly, and paired tests lose power.
# Each costs an eigen-decomposition, which with many features is most of a score's time.
LEAST_GROUPS, LEAST_GROUPS_OF_MANY = 20, 15
NEAREST = 3
MOST_MEMORISED = 100  # one image in so many may be: more are no draws independent of the reference


@dataclass(frozen=True)
class CellScore:
    """What a set of generated images scores against a reference.

    Comparable only at equal image count, extractor, preprocessing and reference. What cannot be
    told where a set is known by its mean and covariance alone is None.

    Attributes:
        n_images, n_reference, n_features: Counts.
        fid, fid_low, fid_high: Plug-in Frechet distance and its 95 % interval; None where fewer
            than 4 images leave no groups to compare.
        fid_inf, fid_inf_low, fid_inf_high: Corrected to infinitely many generated images, with
            its 95 % interval; None where the images are too few for the number of features.
        fid_leave_one_out, fid_inf_leave_one_out: Both without each group in turn, for paired
            tests; the second, before the jackknife's own correction, None as fid_inf is.
        group_sizes: Images in each of these groups.
        fid_bias: How much too high `fid` is for want of generated images: fid - fid_inf, or where
            that is None what as many images of a perfect model would have.
        fid_population, fid_population_low, fid_population_high: Freed of the bias of either side,
            as of infinitely many generated and real images, with its 95 % interval for other
            draws of both; None where either side has too few images for the features, more than
            1 % of the images are memorised, or more than a tenth of the real ones repeat.
        carried_by: How many images carry the spread of FID or of KID, whichever are more (with
            1,024 features or more, of KID).
        tail_index: How slowly the largest pulls on KID fall off; None with fewer than 200 images.
            Where few images carry the spread and their pulls fall off slowly, intervals hold the
            truth less often than they say, see `tails.rests_on_few`.
        directions, curved: Over how few directions the images spread, and how near they are to the
            reference, where a distance is a square and its scatter no bell curve, see
            `tails.lies_flat`.
        duplicates: Images that equal an earlier one.
        near_duplicates, memorised: Images that are copies but for a little, see
            `duplicates.Copies`; None with fewer than 4 images.
        kid: Unbiased kernel distance over 100 subsets (torch-fidelity's defaults).
        kid_se, kid_low, kid_high: Its standard error and 95 % interval; None as fid_low is.
        kid_std: The spread between the subsets; it tells of one subset, not of `kid`.
        kid_subset_size: Images of each set in a subset, at most 1,000.
        precision, recall: Shares of generated and real images inside the other set's manifold;
            None with fewer than 4 images.
        density, coverage: How densely generated images lie around real ones, and the share of real
            images that have one near; with 95 % intervals, see `density_coverage`. None with fewer
            than 6 real images.
        vendi: How many different images the generated ones are worth, with its 95 % interval, see
            `alone.vendi`; None where there are more than 1,024 images and features.
    """

    n_images: int | None
    n_reference: int | None
    n_features: int
    fid: float
    fid_low: float | None = None
    fid_high: float | None = None
    fid_inf: float | None = None
    fid_inf_low: float | None = None
    fid_inf_high: float | None = None
    fid_leave_one_out: list[float] | None = None
    fid_inf_leave_one_out: list[float] | None = None
    group_sizes: list[int] | None = None
    fid_bias: float | None = None
    fid_population: float | None = None
    fid_population_low: float | None = None
    fid_population_high: float | None = None
    carried_by: float | None = None
    tail_index: float | None = None
    directions: float | None = None
    curved: float | None = None
    duplicates: int | None = None
    near_duplicates: int | None = None
    memorised: int | None = None
    kid: float | None = None
    kid_se: float | None = None
    kid_low: float | None = None
    kid_high: float | None = None
    kid_std: float | None = None
    kid_subset_size: int | None = None
    precision: float | None = None
    recall: float | None = None
    density: float | None = None
    density_low: float | None = None
    density_high: float | None = None
    coverage: float | None = None
    coverage_low: float | None = None
    coverage_high: float | None = None
    vendi: float | None = None
    vendi_low: float | None = None
    vendi_high: float | None = None


@dataclass(frozen=True, eq=False)
class ScoreReference:
    """A reference's features [m, d] with what every score against them needs, taken once.

    Attributes:
        features: Of the images.
        gaussian: Their moments, or those of more images than these.
        manifold: Their neighbourhoods; None with fewer than 4.
        is_sample: Whether the moments are of these images alone, and these are independent draws:
            not more than a tenth of them equal an earlier one.
        on: What computes the scores against it.
    """

    features: FeatureRows
    gaussian: Reference
    manifold: Manifold | None
    is_sample: bool
    on: Float64 = ON_CPU

    @classmethod
    def of(
        cls,
        features: ArrayLike | FeatureRows,
        moments: FeatureMoments | None = None,
        on: Float64 = ON_CPU,
    ) -> ScoreReference:
        """Measures a reference.

        Args:
            features: [m, d].
            moments: Of more images than these, where a file of statistics has them beside.
            on: What computes this and the scores against it: a CPU, or a card, whose scores are
                the same but for rounding in float64.

        Raises:
            ValueError: If it has fewer than 2 images, or features are not finite.
        """
        rows = features if isinstance(features, FeatureRows) else FeatureRows.of_array(features)
        manifold = Manifold.of(rows, NEAREST, NEIGHBOURS, on) if len(rows) > NEAREST else None
        found = duplicates_together(rows, [slice(0, len(rows))])
        repeats = found is not None and found.duplicates > len(rows) / 10
        # By a CPU: on rounding hangs the order of its factor, and on that what `bias_of_few` draws.
        gaussian = Reference.of(moments or moments_of(rows), on)
        return cls(rows, gaussian, manifold, moments is None and not repeats, on)


def score_features(
    shards: Sequence[NDArray[Any]], reference: ArrayLike | ScoreReference
) -> CellScore:
    """Scores a cell's feature shards against the reference's features.

    The jackknife leaves out one group of images at a time, see `groups_of`. Shards are read one
    at a time and in order: `shards` may load each when it is asked for, memory does not grow with
    their number, and the bits do not depend on who made which shard first.

    Args:
        shards: Features [n, d] of each shard, in order of image index.
        reference: Features [m, d] of the real images, or what `ScoreReference.of` made of them.

    Raises:
        ValueError: If there are fewer than 2 images on either side, or features are not finite.
    """
    generated = FeatureRows.of(shards)
    if len(generated) < 2:
        raise ValueError("a covariance of 1 feature vector is undefined; it needs at least 2")
    against = reference if isinstance(reference, ScoreReference) else ScoreReference.of(reference)
    groups = groups_of(generated)
    together = duplicates_together(generated, groups)
    real = against.features if against.is_sample else None
    told = score_by_moments(generated, groups, together, against.gaussian, real)
    apart = together.members if together and len(together.members) > 1 else groups
    kernel = KernelSums(generated, apart, against.features, against.on)
    looks: list[Looks] = [kernel]
    inside, copies, near, manifold = None, None, None, against.manifold
    if manifold is not None and len(generated) > NEAREST:
        inside = Coverage(manifold, len(generated))
        copies = CopyCount(
            len(generated), generated.columns, float(np.median(manifold.radii(NEAREST)))
        )
        looks += [inside, copies]
    if manifold is not None and len(against.features) > NEIGHBOURS:
        near = Neighbourhoods(manifold, groups)
        looks.append(near)
    origin = manifold.origin if manifold else None
    look_at_pairs(generated, against.features, origin, looks, against.on)
    precision, recall = inside.shares() if inside else (None, None)
    counted = copies.count() if copies else Copies()
    distance = kernel.score()
    if generated.columns < MANY_FEATURES:  # it takes eigenvectors
        by_frechet = carried_by(frechet_influence(generated, against.gaussian))
        distance = replace(distance, carried_by=max(distance.carried_by, by_frechet))
    if (counted.memorised or 0) > len(generated) / MOST_MEMORISED:
        told = replace(told, fid_population=None, fid_population_low=None, fid_population_high=None)
    return replace(
        told,
        n_reference=len(against.features),
        **asdict(counted),
        **asdict(distance),
        precision=precision,
        recall=recall,
        **asdict(near.score() if near else DensityCoverage()),
    )


def score_by_moments(
    generated: FeatureRows,
    groups: Sequence[slice],
    together: Together | None,
    gaussian: Reference,
    real: FeatureRows | None,
) -> CellScore:
    """What a cell scores against the moments of a reference, and by itself; the rest is None.

    Args:
        generated: Features [n, d].
        groups: Of the jackknife.
        together: The rows with exact duplicates side by side; None where no row stands twice.
        gaussian: The moments.
        real: Features [m, d] of independent images that these are of; None where there are none.
    """
    found = frechet_score(generated, groups, gaussian, real, together)
    vendi = vendi_score(generated, groups)
    return CellScore(
        n_images=len(generated),
        n_reference=None,
        n_features=generated.columns,
        fid=found.fid,
        fid_low=found.fid_low,
        fid_high=found.fid_high,
        fid_inf=found.fid_inf,
        fid_inf_low=found.fid_inf_low,
        fid_inf_high=found.fid_inf_high,
        fid_leave_one_out=list(found.loo),
        fid_inf_leave_one_out=None if found.loo_inf is None else list(found.loo_inf),
        group_sizes=list(found.sizes),
        fid_bias=found.fid_bias,
        fid_population=found.fid_population,
        fid_population_low=found.fid_population_low,
        fid_population_high=found.fid_population_high,
        duplicates=together.duplicates if together else 0,
        vendi=vendi.value,
        vendi_low=vendi.low,
        vendi_high=vendi.high,
    )


def score(generated: NDArray[Any], reference: NDArray[Any]) -> CellScore:
    """Scores features [n, d] of generated images against those of real ones, with intervals.

    Args:
        generated: In order of image index, one row an image.
        reference: Of the same extractor, one row an image.

    Raises:
        ValueError: As `score_features`.
    """
    return score_features([generated], reference)


def groups_of(features: FeatureRows) -> list[slice]:
    """Cuts the images into the jackknife's groups, by their shards.

    There are 20 to 39 of them (15 to 29 with 1,024 features or more). Fewer shards are cut, as far
    as groups of 2 allow; of more shards, neighbours are put together.
    """
    n_shards = len(features.shards)
    least = LEAST_GROUPS if features.columns < MANY_FEATURES else LEAST_GROUPS_OF_MANY
    together = max(1, n_shards // least)
    edges = [*features.starts[:-1:together], features.starts[-1]]
    if n_shards < least:
        pieces = -(-least // n_shards)
        cut = [_cut(start, stop, pieces) for start, stop in pairwise(features.starts)]
        edges = [edge for part in cut for edge in part] + [len(features)]
    groups = [slice(start, stop) for start, stop in pairwise(edges)]
    largest = max(group.stop - group.start for group in groups)
    # Without its largest group a set must still have a covariance.
    return groups if len(features) - largest >= 2 else [slice(0, len(features))]


def _cut(start: int, stop: int, pieces: int) -> list[int]:
    """Where the pieces of a shard begin: nearly equal, the longer ones first, at least 2 each."""
    size = stop - start
    pieces = max(1, min(pieces, size // 2))
    short, longer = divmod(size, pieces)
    return [start + short * i + min(i, longer) for i in range(pieces)]
