"""Intervals by the delete-one-group jackknife, and the Frechet distance at infinite images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.scores.frechet import Reference
from ddim_core.scores.leave_one_out import Spread, leave_one_out_spreads
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import FeatureMoments, check_features, leave_one_out, merge
from ddim_core.statistics.rows import FeatureRows


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
    rests = leave_one_out(shards) if len(shards) > 1 else iter(())
    spreads = [_spread(rest, reference) for rest in rests]
    return _judge(reference.distance(total), _spread(total, reference), spreads, sizes, reference)


def frechet_score(
    features: FeatureRows, groups: Sequence[slice], reference: Reference
) -> FrechetScore:
    """The same from the features themselves, in bounded memory and a fraction of the time.

    Args:
        features: [n, d], n >= 2.
        groups: Consecutive slices that cover the rows; fewer than 2 give no interval.
        reference: What they are compared with.
    """
    whole, *rests = leave_one_out_spreads(features, groups, reference)
    exact = reference.exact_by_spectrum(whole.mean, whole.trace, whole.spectrum)
    if exact is None:
        exact = _by_singular_values(features, reference)
    sizes = [group.stop - group.start for group in groups]
    return _judge(exact, whole, rests, sizes, reference)


def _by_singular_values(features: FeatureRows, reference: Reference) -> float:
    if len(features) <= features.columns:
        return reference.distance_of_features(features.read(0, len(features)))
    return reference.distance(
        merge([FeatureMoments.from_features(rows) for _, rows in features.blocks(4096)])
    )


def _spread(moments: FeatureMoments, reference: Reference) -> Spread:
    trace = float(np.trace(moments.covariance))
    return Spread(moments.count, moments.mean, trace, reference.spectrum(moments))


def _judge(
    fid: float, whole: Spread, rests: Sequence[Spread], sizes: Sequence[int], reference: Reference
) -> FrechetScore:
    if len(rests) < 2:
        return FrechetScore(fid, None, None, None, None, None, (), None, None, tuple(sizes))
    loo = [
        reference.combine(rest.mean, rest.trace, float(np.sqrt(rest.spectrum).sum()))
        for rest in rests
    ]
    plain = jackknife(fid, loo, sizes)
    low, high = max(plain.low, 0.0), plain.high
    if min(rest.count for rest in rests) - 1 <= whole.mean.size:
        return FrechetScore(fid, low, high, None, None, None, tuple(loo), None, None, tuple(sizes))
    raw = _infinity(whole, reference)
    loo_inf = [_infinity(rest, reference) for rest in rests]
    inf = jackknife(raw, loo_inf, sizes)
    return FrechetScore(
        fid, low, high,
        inf.bias_corrected, inf.bias_corrected_low, inf.bias_corrected_high,
        tuple(loo), tuple(loo_inf), raw, tuple(sizes),
    )  # fmt: skip


def frechet_infinity(moments: FeatureMoments, reference: Reference) -> float:
    """Estimates the distance at infinitely many generated images, from n - 1 > d of them.

        FD_inf = |mu - mu_r|^2 - tr C / n + tr C + tr C_r - 2 T

    T is `root_trace_infinity` of the eigenvalues of L_r^T C L_r, N = n - 1. What bias is left is
    of order 1/n (fourth moments), for the jackknife to take. Derived in docs/fid-infinity.md.

    Raises:
        ValueError: If n - 1 <= d.
    """
    if moments.count - 1 <= moments.mean.size:
        raise ValueError(
            f"{moments.count} images do not identify fid_inf of {moments.mean.size} features; "
            f"it needs at least {moments.mean.size + 2}"
        )
    return _infinity(_spread(moments, reference), reference)


def root_trace_infinity(eigenvalues: ArrayLike, dof: int) -> float:
    """Estimates tr M^{1/2} from the eigenvalues of a sample covariance whose mean is M.

        T = (2N/pi) int_0^inf t^{-1/2} (1 - sqrt(1 - phi(t))) dt,
        phi(t) = (1/N) sum_i lambda_i / (lambda_i + t)

    The limit of many dimensions and images at a fixed ratio below 1: the Marchenko-Pastur law
    inverted by a contour integral, here folded onto the negative axis (docs/fid-infinity.md).

    Args:
        eigenvalues: [d] lambda_i >= 0.
        dof: N, the degrees of freedom, above the number of eigenvalues.

    Raises:
        ValueError: If an eigenvalue is negative or N is too small.
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    if dof <= values.size:
        raise ValueError(f"dof is {dof}; it must exceed the {values.size} eigenvalues")
    if values.size and values.min() < 0.0:
        raise ValueError(f"an eigenvalue is {values.min()}; all must be at least 0")
    values = values[values > 0.0]
    if values.size == 0:
        return 0.0
    # In u = log t the integrand is analytic for |Im u| < pi and dies like exp(-|u|/2): the
    # trapezium rule of step 1/2 errs by exp(-4 pi^2) there, the cut at +-80 by exp(-40).
    step = 0.5
    t = values.max() * np.exp(np.arange(-80.0, 80.0 + step, step))
    phi = (values / (values + t[:, None])).sum(axis=1) / dof
    integrand = np.sqrt(t) * phi / (1.0 + np.sqrt(1.0 - phi))  # 1 - sqrt(1 - phi), no cancelling
    return float(2.0 * dof / np.pi * step * integrand.sum())


def _infinity(spread: Spread, reference: Reference) -> float:
    root_trace = root_trace_infinity(spread.spectrum, spread.count - 1)
    plug_in = reference.combine(spread.mean, spread.trace, root_trace)
    return plug_in - spread.trace / spread.count


def chong_forsyth(
    features: ArrayLike,
    reference: Reference,
    points: int = 15,
    fewest: int | None = None,
    seed: int = 0,
) -> float:
    """Extrapolates the Frechet distance to infinitely many generated images by a straight line.

    Plug-in distances of random subsets of n images, at `points` values of n from `fewest` to all,
    are regressed on 1/n by least squares; the intercept is the estimate. It takes the bias to be
    a / n exactly, which holds for d / n small: see docs/fid-infinity.md for what is left.

    Source: Chong and Forsyth 2020 (arXiv:1911.07023), algorithm 1 with simple random samples in
    place of Sobol ones; 15 points, from 5,000 of 50,000 images.

    Args:
        features: Generated features [n, d].
        reference: The reference.
        points: Values of n, at least 2.
        fewest: The smallest n, 2..n - 1; a tenth of n, as theirs, but at least 2, when None.
        seed: Of the subsets.

    Raises:
        ValueError: If there are too few points or images.
    """
    rows = check_features(features, "features")
    least = max(2, len(rows) // 10) if fewest is None else fewest
    if points < 2:
        raise ValueError(f"points is {points}; a line needs at least 2")
    if not 2 <= least < len(rows):
        raise ValueError(f"fewest is {least}; with {len(rows)} images it must lie below that, "
                         "and be at least 2")  # fmt: skip
    random = np.random.default_rng(seed)
    counts = np.linspace(least, len(rows), points).astype(int)
    distances = []
    for count in counts:
        chosen = random.choice(len(rows), count, replace=False)
        distances.append(reference.distance(FeatureMoments.from_features(rows[chosen])))
    _, intercept = np.polyfit(1.0 / counts, distances, 1)
    return float(intercept)
