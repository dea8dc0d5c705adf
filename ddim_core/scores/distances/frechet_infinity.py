"""The Frechet distance at infinitely many images: the bias of few taken off."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.leave_one_out import Spread
from ddim_core.statistics.moments import FeatureMoments, check_features


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
    return at_infinity(spread_of(moments, reference), reference)


def spread_of(moments: FeatureMoments, reference: Reference) -> Spread:
    """What the distance of a set to a reference needs of its moments."""
    trace = float(np.trace(moments.covariance))
    return Spread(moments.count, moments.mean, trace, reference.spectrum(moments))


def at_infinity(spread: Spread, reference: Reference) -> float:
    """`frechet_infinity` of a set with n - 1 > d, the reference as given."""
    root_trace = root_trace_infinity(spread.spectrum, spread.count - 1)
    plug_in = reference.combine(spread.mean, spread.trace, root_trace)
    return plug_in - spread.trace / spread.count


def at_population(spread: Spread, other: float, against: Reference) -> float:
    """The same between populations.

        |mu - mu_r|^2 - tr C / n - tr C_r / m + tr C + tr C_r - 2 T

    T is `root_trace_population`.

    Args:
        spread: Of the one set.
        other: m, how many independent images the other counts for.
        against: The other set.
    """
    root_trace = root_trace_population(spread.spectrum, spread.count - 1, other - 1)
    plug_in = against.combine(spread.mean, spread.trace, root_trace)
    return plug_in - spread.trace / spread.count - against.trace / other


def root_trace_infinity(eigenvalues: ArrayLike, dof: float) -> float:
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


def root_trace_population(eigenvalues: ArrayLike, dof: float, dof_reference: float) -> float:
    """`root_trace_infinity` where the reference's covariance is a sample's too.

        T = (2/pi) int_0^inf t^{1/2} sum_i lambda_i / (lambda_i + t)^2
                             / sqrt((1 - s(t)/N) (1 - s(t)/N_r)) dt,
        s(t) = sum_i lambda_i / (lambda_i + t)

    The same law inverted once for each side. With N_r infinite it is `root_trace_infinity`
    integrated by parts. Source: Tiomoko and Couillet 2019 (arXiv:1903.03447) estimate the same
    quantity by an integral over the spectrum; docs/fid-infinity.md derives this form.

    Args:
        eigenvalues: [d] of C C_r, at least 0.
        dof, dof_reference: N and N_r, each above the number of eigenvalues.

    Raises:
        ValueError: If an eigenvalue is negative or either N is too small.
    """
    values = np.asarray(eigenvalues, dtype=np.float64)
    if min(dof, dof_reference) <= values.size:
        raise ValueError(
            f"the degrees of freedom are {dof} and {dof_reference}; both must exceed the "
            f"{values.size} eigenvalues"
        )
    if values.size and values.min() < 0.0:
        raise ValueError(f"an eigenvalue is {values.min()}; all must be at least 0")
    values = values[values > 0.0]
    if values.size == 0:
        return 0.0
    step = 0.5  # as in `root_trace_infinity`
    t = values.max() * np.exp(np.arange(-80.0, 80.0 + step, step))
    share = values / (values + t[:, None])
    s = share.sum(axis=1)
    slope = (share * (t[:, None] / (values + t[:, None]))).sum(axis=1)  # -t s'(t)
    integrand = np.sqrt(t) * slope / np.sqrt((1.0 - s / dof) * (1.0 - s / dof_reference))
    return float(2.0 / np.pi * step * integrand.sum())


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
