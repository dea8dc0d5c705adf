"""The Frechet distance between Gaussians fitted to two sets of features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from ddim_core.common.late import late
from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.statistics.moments import FeatureMoments, Floats, check_features

if TYPE_CHECKING:
    from scipy import linalg
else:
    linalg = late("scipy.linalg")

# How far below zero rounding can put a distance, as a share of tr C + tr C_r: a few eps per
# feature by singular values (measured: 3e-16 at d = 32), the square root of that by eigenvalues.
_ROUNDING = 1e-9
_ROOT_ROUNDING = 1e-5
# From here on eigenvalues, several times as fast, take the place of singular values where their
# rounding stays below this share of the distance. An eigenvalue is off by a few eps of the
# largest, its root by that over twice the root; 4 eps covers all cases seen by a factor of 2.
_LARGE = 512
_EIGENVALUE_ERROR = 4.0 * np.finfo(np.float64).eps
_INVISIBLE = 1e-10
# Pivots of dependent features come out below 20 eps, measured for d = 3..1000, n = 3..20,000 and
# up to 50 merged shards; their theoretical bound grows with d.
_PIVOT_ROUNDING = 30.0
# The share of the variance a factor may miss: d eps per dropped pivot is 5e-13 at d = 2048.
_INDEFINITE = 1e-6


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference set, factored once and compared with many generated sets.

        FD = |mu - mu_r|^2 + tr C + tr C_r - 2 tr (C C_r)^{1/2}
        tr (C C_r)^{1/2} = sum of the singular values of L^T L_r,   C = L L^T, C_r = L_r L_r^T

    Source: Dowson and Landau 1982; Heusel et al. 2017 (arXiv:1706.08500). The singular values
    replace the matrix square root: with rank-deficient covariances (n <= d, dead or doubled
    features) a square root of C C_r turns rounding eps into sqrt(eps) along every null direction;
    factors of the true rank have no such directions.

    Moments in float64 know a direction whose spread is 1e-7 of the largest or less only roughly:
    features that depend on each other up to float32 rounding cost 2e-8 of the distance. Exactly
    dependent ones, and all spreads above that, leave it exact to 1e-9 (measured: 1e-12).

    The distance is unitless, and comparable only at equal image count, extractor and
    preprocessing: it is biased upwards by a term in 1/n (see `uncertainty`).

    Attributes:
        mean: [d].
        trace: tr C_r.
        factor: L_r, [d, rank].
        on: What takes large matrices apart in all comparisons with it.
    """

    mean: Floats
    trace: float
    factor: Floats
    on: Float64 = field(default=ON_CPU)

    @classmethod
    def of(cls, moments: FeatureMoments, on: Float64 = ON_CPU) -> Reference:
        """Factors the reference's covariance; ValueError if its count is 1."""
        return cls(moments.mean, _trace(moments), covariance_factor(moments), on)

    def distance(self, moments: FeatureMoments) -> float:
        """The distance: the figure to publish.

        By singular values; with many features by eigenvalues, where these are exact to 1e-10.

        Raises:
            ValueError: If the count is 1 or the number of features differs.
        """
        if moments.mean.size >= _LARGE and moments.count > 1:
            exact = self.exact_by_spectrum(moments.mean, _trace(moments), self.spectrum(moments))
            if exact is not None:
                return exact
        return self.exact_distance(moments)

    def exact_distance(self, moments: FeatureMoments) -> float:
        """The distance by singular values, however many features there are."""
        root_trace = float(self.root_spectrum(moments).sum())
        value = self.combine(moments.mean, _trace(moments), root_trace)
        return self._settle(value, _trace(moments), _ROUNDING)

    def exact_by_spectrum(self, mean: Floats, trace: float, spectrum: Floats) -> float | None:
        """The distance from `spectrum`, or None if rounding could show in its first ten digits.

        That is with fewer than 512 features, where singular values cost little, and where
        eigenvalues lie so near to 0 that their roots have lost digits.
        """
        if spectrum.size < _LARGE or spectrum.min() <= 0.0:
            return None
        value = self.combine(mean, trace, float(np.sqrt(spectrum).sum()))
        error = _EIGENVALUE_ERROR * spectrum.max() * np.sqrt((1.0 / spectrum).sum())
        return value if error <= _INVISIBLE * value else None

    def resampled_distance(self, moments: FeatureMoments) -> float:
        """The same distance by `spectrum`: twice as fast, for many resamples of one set.

        Eigenvalues near rounding have a square root of half the digits, so that it agrees with
        `distance` to about 1e-7 relative where the covariances are near singular.
        """
        root_trace = float(np.sqrt(self.spectrum(moments)).sum())
        value = self.combine(moments.mean, _trace(moments), root_trace)
        return self._settle(value, _trace(moments), _ROOT_ROUNDING)

    def combine(self, mean: Floats, trace: float, root_trace: float) -> float:
        """Puts the distance together from tr (C C_r)^{1/2}, however that was come by."""
        difference = mean - self.mean
        return float(difference @ difference) + trace + self.trace - 2.0 * root_trace

    def distance_of_features(self, x: ArrayLike) -> float:
        """`distance` of features [n, d] without their [d, d] covariance: fast when n << d.

        The centred features over sqrt(n - 1) are themselves a factor L^T of C.
        """
        rows = check_features(x, "features").astype(np.float64)
        if len(rows) < 2:
            raise ValueError("a covariance of 1 feature vector is undefined; it needs at least 2")
        self.check_columns(rows.shape[1])
        offset = (rows - rows[0]).mean(axis=0)  # from the first row, as in FeatureMoments
        centred = (rows - rows[0] - offset) / np.sqrt(len(rows) - 1)
        trace = float(np.vdot(centred, centred))
        root_trace = float(linalg.svdvals(centred @ self.factor).sum()) if self.factor.size else 0.0
        value = self.combine(rows[0] + offset, trace, root_trace)
        return self._settle(value, trace, _ROUNDING)

    def root_spectrum(self, moments: FeatureMoments) -> Floats:
        """The singular values of L^T L_r: square roots of the nonzero eigenvalues of C C_r."""
        self.check_columns(moments.mean.size)
        factor = covariance_factor(moments)
        if not (factor.size and self.factor.size):  # a set of equal rows has rank 0
            return np.zeros(0)
        return self.on.singular_values(self.on.put(factor.T) @ self.on.put(self.factor))

    def spectrum(self, moments: FeatureMoments) -> Floats:
        """The largest min(n - 1, rank) eigenvalues of L_r^T C L_r, at least 0."""
        self.check_columns(moments.mean.size)
        rank = self.factor.shape[1]
        if rank == 0:
            return np.zeros(0)
        factor = self.on.put(self.factor)
        product = factor.T @ (self.on.put(moments.covariance) @ factor)
        keep = min(moments.count - 1, rank)
        values: Floats = linalg.eigvalsh(self.on.got(product), overwrite_a=True, check_finite=False)
        return np.maximum(values[rank - keep :], 0.0)

    def check_columns(self, columns: int) -> None:
        """Refuses features of another number of columns: they are another extractor's."""
        if columns != self.mean.size:
            raise ValueError(
                f"features have {columns} columns but the reference's {self.mean.size}; "
                "both must come from one extractor"
            )

    def _settle(self, value: float, trace: float, rounding: float) -> float:
        if not value >= -rounding * (trace + self.trace):
            raise ArithmeticError(
                f"the Frechet distance came out as {value}; features cannot have these moments"
            )
        return max(value, 0.0)


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """The Frechet distance of two sets of features; see `Reference` for the formula.

    Raises:
        ValueError: If a count is 1 or the numbers of features differ.
    """
    return Reference.of(b).distance(a)


def frechet_values(x: ArrayLike, reference: Reference) -> Floats:
    """Returns a value of each image, [n], whose mean is the plug-in distance of them all.

        v_i = FD + h_i - mean h,    h_i = 2 (mu - mu_r).z_i + |z_i|^2 - y_i^T M^{-1/2} y_i

    with z_i = x_i - mu, y_i = L_r^T z_i and M = L_r^T C L_r: the distance with how much each image
    moves it (its influence, as `frechet_influence`). So the standard error of the mean of v is that
    of the distance, and of v - v' that of the difference of two sets drawn from the same noise.
    From the singular values of the centred features in the reference's factor, U S V^T, both cost
    one decomposition: FD needs sum S, and y_i^T M^{-1/2} y_i = (n - 1) sum_k U_ik^2 S_k.

    Args:
        x: Features [n, d], n >= 2.
        reference: What they are compared with, of rank r.

    Raises:
        ValueError: If n is 1, d differs, or a feature is not finite.
    """
    rows = check_features(x, "features").astype(np.float64)
    n = len(rows)
    if n < 2:
        raise ValueError("a covariance of 1 feature vector is undefined; it needs at least 2")
    reference.check_columns(rows.shape[1])
    mean = rows[0] + (rows - rows[0]).mean(axis=0)
    z = rows - mean
    u, s, _ = linalg.svd(z @ reference.factor / np.sqrt(n - 1), full_matrices=False)
    squares = (z * z).sum(axis=1)
    moved = 2.0 * (z @ (mean - reference.mean)) + squares - (n - 1) * (u * u) @ s
    fid = reference.combine(mean, float(squares.sum()) / (n - 1), float(s.sum()))
    return np.asarray(fid + moved - moved.mean())


def covariance_factor(moments: FeatureMoments) -> Floats:
    """A factor L [d, rank] with C = L L^T, by a pivoted Cholesky factorisation.

    The features are first scaled to unit variance, so that a feature with tiny variance keeps its
    digits beside a large one, and dead features drop out. Pivots below (d + 30) eps, and beyond
    the n - 1 that n centred vectors can span, are rounding and are dropped.

    Source: Higham 1990, "Analysis of the Cholesky decomposition of a semi-definite matrix";
    LAPACK dpstrf.

    Raises:
        ValueError: If the count is 1, or the covariance is not positive semi-definite.
    """
    covariance = moments.covariance
    variances = covariance.diagonal()
    if variances.min() < 0.0:
        raise ValueError(f"a variance is {variances.min()}; the scatter must be a sum of squares")
    alive = np.flatnonzero(variances)
    scale = np.sqrt(variances[alive])
    correlation = covariance[np.ix_(alive, alive)] / scale / scale[:, None]
    if alive.size == 0:
        return np.zeros((moments.mean.size, 0))
    tolerance = (_PIVOT_ROUNDING + alive.size) * np.finfo(np.float64).eps
    lower, pivots, rank, _ = linalg.lapack.dpstrf(correlation, tol=tolerance, lower=1)
    rank = min(int(rank), moments.count - 1)
    lower = np.tril(lower)[:, :rank]
    if not abs(np.vdot(lower, lower) - alive.size) <= _INDEFINITE * alive.size:
        raise ValueError(
            f"the covariance of {moments.count} features is not one: it is indefinite, or its "
            "rank exceeds n - 1"
        )
    factor = np.zeros((moments.mean.size, rank))
    factor[alive[pivots - 1]] = lower
    factor[alive] *= scale[:, None]
    return factor


def _trace(moments: FeatureMoments) -> float:
    return float(np.trace(moments.covariance))
