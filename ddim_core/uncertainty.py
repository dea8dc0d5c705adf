"""Intervals by the delete-one-group jackknife, and the Frechet distance at infinite images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr, stdtrit

from ddim_core.frechet import Reference
from ddim_core.moments import FeatureMoments, Floats, leave_one_out, merge

LEVEL = 0.95


@dataclass(frozen=True)
class Jackknife:
    """An estimate from G groups, its standard error and its bias-corrected twin.

    Attributes:
        value: theta, on all groups.
        bias_corrected: theta freed of its bias of order 1/n.
        se: Standard error, of both.
        half_width: Of the 95 % interval, Student t at G - 1 degrees of freedom.
        groups: G.
    """

    value: float
    bias_corrected: float
    se: float
    half_width: float
    groups: int

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    @property
    def bias_corrected_low(self) -> float:
        return self.bias_corrected - self.half_width

    @property
    def bias_corrected_high(self) -> float:
        return self.bias_corrected + self.half_width


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


@dataclass(frozen=True)
class PairedDifference:
    """value = theta_a - theta_b with its 95 % interval and the two-sided p-value."""

    value: float
    se: float
    low: float
    high: float
    p_value: float


def jackknife(
    theta: float, leave_one_out: Sequence[float], sizes: Sequence[int] | None = None
) -> Jackknife:
    """Judges an estimate by leaving out one group at a time.

        pseudo_j = h_j theta - (h_j - 1) loo_j,    h_j = n / m_j
        bias_corrected = sum_j pseudo_j / h_j
        se^2 = (1/G) sum_j (pseudo_j - bias_corrected)^2 / (h_j - 1)

    At equal sizes this is the plain jackknife: bias_corrected = G theta - (G - 1) mean(loo),
    se^2 = (G - 1)/G sum (loo_j - mean(loo))^2.

    Source: Busing, Meijer and van der Leeden 1999, "Delete-m jackknife for unequal m".

    Args:
        theta: The estimate from all groups.
        leave_one_out: [G] estimates, each without one group.
        sizes: m_j, members per group; equal when None.

    Raises:
        ValueError: If there are fewer than 2 groups, a size is below 1, the lengths differ, or a
            value is not finite.
    """
    loo = np.asarray(leave_one_out, dtype=np.float64)
    groups = loo.size
    if groups < 2:
        raise ValueError(f"a jackknife needs at least 2 groups, not {groups}")
    members = np.ones(groups) if sizes is None else np.asarray(sizes, dtype=np.float64)
    if members.shape != loo.shape or members.min() < 1.0:
        raise ValueError(f"sizes is {sizes}; it must hold {groups} numbers of at least 1")
    if not (np.isfinite(theta) and np.isfinite(loo).all()):
        raise ValueError("an estimate is not finite; the jackknife needs finite estimates")
    h = members.sum() / members
    pseudo = h * theta - (h - 1.0) * loo
    bias_corrected = float((pseudo / h).sum())
    se = float(np.sqrt(np.mean((pseudo - bias_corrected) ** 2 / (h - 1.0))))
    half_width = float(stdtrit(groups - 1, 0.5 + LEVEL / 2)) * se
    return Jackknife(float(theta), bias_corrected, se, half_width, groups)


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
    sizes = tuple(shard.count for shard in shards)
    fid = reference.distance(total)
    if len(shards) < 2:
        return FrechetScore(fid, None, None, None, None, None, (), None, None, sizes)
    seen = total.count - max(sizes) - 1 > total.mean.size
    loo: list[float] = []
    loo_inf: list[float] = []
    for rest in leave_one_out(shards):
        spectrum = reference.spectrum(rest)
        loo.append(reference.combine(rest, float(np.sqrt(spectrum).sum())))
        if seen:
            loo_inf.append(_infinity(rest, reference, spectrum))
    plain = jackknife(fid, loo, sizes)
    low, high = max(plain.low, 0.0), plain.high
    if not seen:
        return FrechetScore(fid, low, high, None, None, None, tuple(loo), None, None, sizes)
    raw = frechet_infinity(total, reference)
    inf = jackknife(raw, loo_inf, sizes)
    return FrechetScore(
        fid, low, high,
        inf.bias_corrected, inf.bias_corrected_low, inf.bias_corrected_high,
        tuple(loo), tuple(loo_inf), raw, sizes,
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
    return _infinity(moments, reference, reference.spectrum(moments))


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


def paired_difference(
    loo_a: Sequence[float],
    loo_b: Sequence[float],
    theta_a: float,
    theta_b: float,
    sizes: Sequence[int] | None = None,
) -> PairedDifference:
    """Tests theta_a = theta_b for two cells whose shards share their noise, group by group.

    The jackknife of the difference: what the shared noise moves in both cells cancels. It is
    centred on theta_a - theta_b, whose biases cancel as far as the two cells are alike.

    Args:
        loo_a, loo_b: [G] estimates without each group, groups in one order.
        theta_a, theta_b: Estimates from all groups.
        sizes: Members per group; equal when None.

    Raises:
        ValueError: If the lengths differ, or as `jackknife`.
    """
    if len(loo_a) != len(loo_b):
        raise ValueError(f"the cells have {len(loo_a)} and {len(loo_b)} groups; pairs need equal")
    loo = np.subtract(np.asarray(loo_a, dtype=np.float64), np.asarray(loo_b, dtype=np.float64))
    found = jackknife(theta_a - theta_b, loo.tolist(), sizes)
    if found.se == 0.0:
        p_value = 1.0 if found.value == 0.0 else 0.0
    else:
        p_value = float(2.0 * stdtr(found.groups - 1, -abs(found.value) / found.se))
    return PairedDifference(found.value, found.se, found.low, found.high, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for testing several hypotheses at once, in the order given.

    The k-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= k, at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Raises:
        ValueError: If a value is outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError(f"p_values is {list(p_values)}; each must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def _infinity(moments: FeatureMoments, reference: Reference, spectrum: Floats) -> float:
    root_trace = root_trace_infinity(spectrum, moments.count - 1)
    mean_bias = float(np.trace(moments.covariance)) / moments.count
    return reference.combine(moments, root_trace) - mean_bias
