"""The Frechet distance of a set of images with its intervals, against a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from operator import add

import numpy as np

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_infinity import at_infinity, at_population, spread_of
from ddim_core.scores.distances.leave_one_out import Spread, leave_one_out_spreads
from ddim_core.statistics.duplicates import Together
from ddim_core.statistics.jackknife import TwoSided, jackknife, two_sided
from ddim_core.statistics.moments import FeatureMoments, Floats, leave_one_out, merge
from ddim_core.statistics.rows import FeatureRows, places

# Groups of the real images: each costs what a group of generated ones does, an eigen-decomposition.
# With many features that is two thirds of a score again, spent where the reference is small.
MANY_FEATURES = 1024
REAL_GROUPS, FEW_REAL_GROUPS = 20, 6
SMALL = 5  # images a feature


@dataclass(frozen=True)
class FrechetScore:
    """A Frechet distance with its 95 % intervals; comparable at equal count, extractor, reference.

    Attributes:
        fid: The plug-in distance of all images.
        fid_low, fid_high: Its spread over other draws of as many images; fid_low is clipped at 0
            since no distance is below it. None with 1 shard.
        fid_inf: The distance freed of its bias, as of infinitely many generated images; it may
            fall slightly below 0 when the truth is near 0, and is left so to stay unbiased.
            None where the images are too few, see `frechet_interval`.
        fid_inf_low, fid_inf_high: Its interval, not clipped.
        fid_population, fid_population_low, fid_population_high: Freed of the bias of either side,
            as of infinitely many generated and real images, see `population`. None where only
            statistics of the reference are known, and where that says so.
        fid_bias: How much too high `fid` is for want of generated images: fid - fid_inf, or where
            that is None what as many images of a perfect model would have, see `bias_of_few`;
            None for equal images in large numbers.
        loo, loo_inf: Both without each shard in turn, for `paired_difference`; loo_inf (before
            the jackknife's own correction, as is fid_inf_raw) None as fid_inf is.
        fid_inf_raw: `frechet_infinity` of all images, the theta that belongs to loo_inf.
        sizes: Images per shard.
    """

    fid: float
    fid_low: float | None
    fid_high: float | None
    fid_inf: float | None
    fid_inf_low: float | None
    fid_inf_high: float | None
    loo: tuple[float, ...]
    loo_inf: tuple[float, ...] | None
    fid_inf_raw: float | None
    sizes: tuple[int, ...]
    fid_bias: float | None = None
    fid_population: float | None = None
    fid_population_low: float | None = None
    fid_population_high: float | None = None


def frechet_interval(shards: Sequence[FeatureMoments], reference: Reference) -> FrechetScore:
    """Scores generated shards against a reference, with intervals over the shards.

    fid_inf is the jackknife-corrected `frechet_infinity`; the reference counts as given, without
    error of its own. It is None unless every leave-one-out set has n - 1 > d: with fewer images
    some directions of feature space are never seen, and no correction can know their variance.
    With 1 shard there is nothing to leave out, and all bounds and fid_inf are None.

    Raises:
        ValueError: If there is no shard, or fewer than 2 images are left in any set.
    """
    total = merge(shards)
    sizes = [shard.count for shard in shards]
    sets = [total, *(leave_one_out(shards) if len(shards) > 1 else ())]
    spreads = [spread_of(moments, reference) for moments in sets]
    return _judge(reference.distance(total), spreads, sizes, reference)


def frechet_score(
    features: FeatureRows,
    groups: Sequence[slice],
    reference: Reference,
    real: FeatureRows | None = None,
    together: Together | None = None,
) -> FrechetScore:
    """The same from the features themselves, in bounded memory and a fraction of the time.

    Exact duplicates among the images, which are no independent draws, are left out together, and
    count in fid_inf as one; `loo` and `loo_inf`, which serve pairs of cells, go by the groups as
    given.

    Args:
        features: [n, d], n >= 2.
        groups: Consecutive slices that cover the rows; fewer than 2 give no interval.
        reference: What they are compared with.
        real: Features [m, d] that the reference is of, independent draws, for fid_population.
        together: The rows with exact duplicates side by side; None where no row stands twice.
    """
    spreads = list(leave_one_out_spreads(features, groups, reference))
    whole = spreads[0]
    exact = reference.exact_by_spectrum(whole.mean, whole.trace, whole.spectrum)
    if exact is None:
        exact = _by_singular_values(features, reference)
    sizes = [group.stop - group.start for group in groups]
    score = _judge(exact, spreads, sizes, reference)
    if together and len(together.groups) > 1:
        members = list(leave_one_out_spreads(together.rows, together.groups, reference))
        spreads = [_thinned(*one) for one in zip(members, together.effective, strict=True)]
        sizes = [group.stop - group.start for group in together.groups]
        apart = _judge(exact, spreads, sizes, reference)
        score = replace(apart, loo=score.loo, loo_inf=score.loo_inf, sizes=score.sizes)
    elif together:  # one image, many times
        score, spreads = FrechetScore(exact, None, None, None, None, None, score.loo,
                                      score.loo_inf, None, score.sizes), spreads[:1]  # fmt: skip
    bias = None if score.fid_inf is None else score.fid - score.fid_inf
    count = int(together.effective[0]) if together else len(features)
    if bias is None and 2 <= count <= 2 * features.columns:
        bias = bias_of_few(reference, count, len(real) if real else None)
    found = population(features, spreads, sizes, reference, real) if real else None
    return replace(
        score,
        fid_bias=bias,
        fid_population=found.value if found else None,
        fid_population_low=found.low if found else None,
        fid_population_high=found.high if found else None,
    )


def frechet_influence(features: FeatureRows, reference: Reference) -> Floats:
    """How much each image moves the plug-in distance, [n], up to what all share.

        2 (mu - mu_r).(x - mu) + |x - mu|^2 - y^T M^{-1/2} y,    y = L_r^T (x - mu), M = L_r^T C L_r

    That is n times its derivative in the image's weight; directions that no image has are left out.

    Args:
        features: [n, d].
        reference: The reference, of rank r.
    """
    on = reference.on
    moments, factor = moments_of(features, on), on.put(reference.factor)
    values, vectors = on.eigenvectors(factor.T @ on.put(moments.covariance) @ factor)
    alive = values > values[-1:] * len(values) * np.finfo(np.float64).eps
    seen = factor @ on.put(vectors[:, alive] / values[alive] ** 0.25)
    ahead, mean = on.put(2.0 * (moments.mean - reference.mean)), on.put(moments.mean)
    return np.concatenate([
        on.got(
            centred @ ahead + (centred * centred).sum(axis=1) - ((centred @ seen) ** 2).sum(axis=1)
        )
        for centred in (on.put(rows) - mean for _, rows in features.blocks())
    ])  # fmt: skip


@lru_cache(maxsize=4)  # cells of a grid share theirs
def bias_of_few(reference: Reference, n: int, m: int | None) -> float:
    """The plug-in distance that n images of a perfect model would have, by simulation.

    One Gaussian sample of n, of the reference's own mean and covariance, is scored against another
    of m: with many features one is as good as many. It tells how much of a distance is want of
    images where nothing else can, with no more images than features. The covariance of m images
    spreads wider than that of all; it is drawn towards a multiple of 1 by as much as a Gaussian
    population asks for (oracle approximating shrinkage).

    Source of the shrinkage: Chen, Wiesel, Eldar and Hero 2010 (arXiv:0907.4698), eq. 23.

    Args:
        reference: The reference.
        n: Images, at least 2.
        m: Real ones, at least 2; None where nobody says, and the reference counts as given.
    """
    rng, d = np.random.default_rng(0), reference.mean.size
    share = 0.0 if m is None else _shrinkage(reference, m)

    def drawn(count: int) -> Floats:
        noise = rng.standard_normal((count, reference.factor.shape[1])) @ reference.factor.T
        even = rng.standard_normal((count, d)) * np.sqrt(reference.trace / d)
        return np.sqrt(1.0 - share) * noise + np.sqrt(share) * even + reference.mean

    made = drawn(n)
    if m is None:
        return reference.distance_of_features(made)
    return Reference.of(FeatureMoments.from_features(drawn(m))).distance_of_features(made)


def _shrinkage(reference: Reference, m: int) -> float:
    """Which share of the covariance of m images is to be replaced by its mean variance."""
    d, trace2 = reference.mean.size, reference.trace**2
    gram = reference.factor.T @ reference.factor
    squares = float(np.vdot(gram, gram))  # tr C^2
    spread = (m + 1.0 - 2.0 / d) * (squares - trace2 / d)
    wanted = (1.0 - 2.0 / d) * squares + trace2
    return 1.0 if wanted >= spread else wanted / spread


def _thinned(spread: Spread, effective: float) -> Spread:
    """The spread of a set whose rows count for fewer independent ones."""
    scale = (spread.count - 1.0) / (spread.count * (1.0 - 1.0 / effective))
    return Spread(effective, spread.mean, spread.trace * scale, spread.spectrum * scale)


def _by_singular_values(features: FeatureRows, reference: Reference) -> float:
    if len(features) <= features.columns:
        return reference.distance_of_features(features.read(0, len(features)))
    return reference.exact_distance(moments_of(features, reference.on))


def moments_of(features: FeatureRows, on: Float64 = ON_CPU) -> FeatureMoments:
    """Takes the moments of rows [n, d], a few thousand at a time; two matrices [d, d] are held."""
    of_blocks = (FeatureMoments.from_features(rows, on) for _, rows in features.blocks(4096))
    return reduce(add, of_blocks)


def _judge(
    fid: float, spreads: Sequence[Spread], sizes: Sequence[int], reference: Reference
) -> FrechetScore:
    whole, *rests = spreads
    if len(rests) < 2:
        return FrechetScore(fid, None, None, None, None, None, (), None, None, tuple(sizes))
    loo = [
        reference.combine(rest.mean, rest.trace, float(np.sqrt(rest.spectrum).sum()))
        for rest in rests
    ]
    plain = jackknife(fid, loo, sizes)
    low, high = max(plain.low, 0.0), plain.high
    if not identified(spreads):
        return FrechetScore(fid, low, high, None, None, None, tuple(loo), None, None, tuple(sizes))
    raw = at_infinity(whole, reference)
    loo_inf = [at_infinity(rest, reference) for rest in rests]
    inf = jackknife(raw, loo_inf, sizes)
    return FrechetScore(
        fid, low, high,
        inf.bias_corrected, inf.bias_corrected_low, inf.bias_corrected_high,
        tuple(loo), tuple(loo_inf), raw, tuple(sizes),
    )  # fmt: skip


def identified(spreads: Sequence[Spread]) -> bool:
    """Tells whether every set of a jackknife has n - 1 > d, so that all directions are seen."""
    return min(spread.count for spread in spreads) - 1 > spreads[0].mean.size


def population(
    features: FeatureRows,
    spreads: Sequence[Spread],
    sizes: Sequence[int],
    reference: Reference,
    real: FeatureRows,
) -> TwoSided | None:
    """Estimates the distance of the two populations, from n and m images of them.

    `at_population` is jackknifed over either side: what is left of its bias at order 1/n and 1/m
    goes, and the variances add up.

    Args:
        features: The generated images' [n, d].
        spreads, sizes: Of these, as `leave_one_out_spreads` yields them, and the groups' sizes.
        reference: The reference.
        real: Its features [m, d].

    Returns:
        None where either side has too few images for its d features, and with 1,024 features or
        more where the reference has over 5 d images: what it adds is small then, and costly to
        know.
    """
    m, many = len(real), real.columns >= MANY_FEATURES
    if many and m > SMALL * real.columns:
        return None
    cuts = places(m, -(-m // (FEW_REAL_GROUPS if many else REAL_GROUPS)))
    if len(spreads) < 3 or not identified(spreads) or min(m, len(cuts)) < 2:
        return None
    if m - max(cut.stop - cut.start for cut in cuts) - 1 <= real.columns:
        return None
    as_reference = Reference.of(moments_of(features, reference.on), reference.on)
    of_real = list(leave_one_out_spreads(real, cuts, as_reference))
    made = [at_population(one, m, reference) for one in spreads]
    # As seen from the other side, the generated set counts for what it did there.
    back = [at_population(one, spreads[0].count, as_reference) for one in of_real]
    ours = jackknife(made[0], made[1:], sizes)
    theirs = jackknife(back[0], back[1:], [cut.stop - cut.start for cut in cuts])
    return two_sided(ours, theirs)
