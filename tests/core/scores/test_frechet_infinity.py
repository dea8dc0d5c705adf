"""Intervals: the jackknife by hand, the limit of infinite images, and their coverage."""

import numpy as np
import pytest
from scipy.stats import t as student

from ddim_core.scores.distances.frechet import Reference, frechet_distance
from ddim_core.scores.distances.frechet_infinity import (
    frechet_infinity,
    root_trace_infinity,
)
from ddim_core.scores.distances.frechet_score import frechet_interval
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.statistics.paired import paired_difference
from tests.core.worlds import World


def leave_out(values: np.ndarray, sizes: list[int], statistic) -> list[float]:
    groups = np.split(values, np.cumsum(sizes)[:-1])
    rests = [np.concatenate(groups[:j] + groups[j + 1 :]) for j in range(len(groups))]
    return [float(statistic(rest)) for rest in rests]


def shards_of(x: np.ndarray, n_shards: int = 10) -> list[FeatureMoments]:
    return [FeatureMoments.from_features(part) for part in np.array_split(x, n_shards)]


def test_jackknife_of_a_mean_has_the_textbook_standard_error_and_interval():
    values = np.random.default_rng(0).normal(size=12)
    found = jackknife(values.mean(), leave_out(values, [1] * 12, np.mean))
    standard_error = values.std(ddof=1) / np.sqrt(12)
    assert found.se == pytest.approx(standard_error, rel=1e-10)
    assert found.bias_corrected == pytest.approx(values.mean(), rel=1e-10)
    low, high = student.interval(0.95, 11, values.mean(), standard_error)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_jackknife_takes_the_bias_from_a_plug_in_variance():
    values = np.random.default_rng(0).normal(size=30)
    found = jackknife(values.var(), leave_out(values, [1] * 30, np.var))
    # A plug-in variance is biased by exactly 1/n, which the jackknife removes exactly.
    assert found.bias_corrected == pytest.approx(values.var(ddof=1), rel=1e-10)
    assert found.value == values.var()


def test_jackknife_of_unequal_groups_is_exact_for_a_mean():
    values = np.random.default_rng(0).normal(size=20)
    sizes = [1, 9, 4, 6]
    found = jackknife(values.mean(), leave_out(values, sizes, np.mean), sizes)
    assert found.bias_corrected == pytest.approx(values.mean(), rel=1e-10)
    # For a mean the pseudo-values are the groups' means: spread by sigma^2 / m_j each.
    means = np.array([group.mean() for group in np.split(values, np.cumsum(sizes)[:-1])])
    m = np.array(sizes)
    expected = np.mean((means - values.mean()) ** 2 * m / (20 - m))
    assert found.se == pytest.approx(np.sqrt(expected), rel=1e-10)


def test_jackknife_of_equal_sizes_is_the_plain_one():
    loo = [1.0, 1.5, 0.7, 1.2]
    plain = jackknife(1.1, loo)
    assert jackknife(1.1, loo, [25] * 4) == plain
    assert plain.bias_corrected == pytest.approx(4 * 1.1 - 3 * np.mean(loo))
    assert plain.se == pytest.approx(np.sqrt(0.75 * np.sum((np.array(loo) - np.mean(loo)) ** 2)))


@pytest.mark.parametrize(
    ("loo", "sizes", "message"),
    [
        ([], None, "at least 2 groups, not 0"),
        ([1.0], None, "at least 2 groups, not 1"),
        ([1.0, 2.0], [1, 2, 3], "2 numbers"),
        ([1.0, 2.0], [0, 3], "at least 1"),
        ([1.0, np.nan], None, "not finite"),
    ],
)
def test_groups_that_cannot_be_judged_are_refused(loo, sizes, message):
    with pytest.raises(ValueError, match=message):
        jackknife(1.0, loo, sizes)


def test_the_folded_integral_is_the_contour_integral():
    # docs/fid-infinity.md, eq. 3, on a circle around the support that leaves out 0.
    eigenvalues, dof = np.array([1.0, 1.3, 2.0, 2.1, 3.0]), 12
    c = len(eigenvalues) / dof
    angle = np.arange(4000) * 2 * np.pi / 4000
    z = 2.2 + 2.0 * np.exp(1j * angle)
    dz = 2.0j * np.exp(1j * angle) * 2 * np.pi / 4000
    gaps = eigenvalues - z[:, None]
    m = -(1 - c) / z + (1 / gaps).sum(axis=1) / dof
    slope = (1 - c) / z**2 + (1 / gaps**2).sum(axis=1) / dof
    contour = (np.sqrt(-1 / m) * z * slope * dz).sum() * len(eigenvalues) / (2j * np.pi * c)
    assert contour.imag == pytest.approx(0.0, abs=1e-10)
    assert root_trace_infinity(eigenvalues, dof) == pytest.approx(contour.real, rel=1e-10)


def test_the_folded_integral_is_the_sum_over_its_cuts():
    # docs/fid-infinity.md, eq. 5, by the midpoint rule in an angle that removes both end points.
    eigenvalues, dof = np.array([1e-6, 0.2, 1.0, 30.0]), 9
    roots = np.sqrt(eigenvalues)
    zeros = np.linalg.eigvalsh(np.diag(eigenvalues) - np.outer(roots, roots) / dof)
    angle = (np.arange(2000) + 0.5) * np.pi / 2000
    total = 0.0
    for low, high in zip(zeros, eigenvalues, strict=True):
        x = (low + high) / 2 - (high - low) / 2 * np.cos(angle)
        m = -(1 - 4 / 9) / x + (1 / (eigenvalues - x[:, None])).sum(axis=1) / dof
        total += np.sum(np.sqrt(m) * (high - low) / 2 * np.sin(angle)) * np.pi / 2000
    assert root_trace_infinity(eigenvalues, dof) == pytest.approx(2 * dof / np.pi * total, rel=1e-6)


def test_at_infinite_degrees_of_freedom_the_roots_are_simply_summed():
    eigenvalues = np.array([0.0, 1e-9, 0.5, 4.0, 1e6])
    expected = np.sqrt(eigenvalues).sum()
    # The first correction is of order d/N = 5e-12.
    assert root_trace_infinity(eigenvalues, 10**12) == pytest.approx(expected, rel=1e-10)
    assert root_trace_infinity(np.zeros(3), 10) == 0.0


def test_the_root_trace_scales_as_a_root():
    eigenvalues = np.array([0.3, 1.0, 7.0])
    value = root_trace_infinity(eigenvalues, 5)
    assert root_trace_infinity(eigenvalues * 1e8, 5) == pytest.approx(1e4 * value, rel=1e-12)
    assert value > np.sqrt(eigenvalues).sum()


@pytest.mark.parametrize(
    ("eigenvalues", "dof", "message"), [([1.0, 2.0], 2, "dof is 2"), ([-1.0], 9, "-1.0")]
)
def test_eigenvalues_beyond_the_formula_are_refused(eigenvalues, dof, message):
    with pytest.raises(ValueError, match=message):
        root_trace_infinity(eigenvalues, dof)


def test_fid_infinity_has_lost_the_bias_that_the_plug_in_has():
    world = World(64)
    raw, plug_in = [], []
    for _ in range(40):
        moments = FeatureMoments.from_features(world.draw(160))
        raw.append(frechet_infinity(moments, world.reference) - world.truth)
        plug_in.append(world.reference.distance(moments) - world.truth)
    # d/N = 0.4. Measured over 300 draws: plug-in +7.0, this one +0.1, each draw spread by 0.65.
    assert np.mean(plug_in) > 5.0
    assert abs(np.mean(raw)) < 0.1 + 4 * 0.65 / np.sqrt(40)


def test_fid_inf_is_centred_on_a_truth_of_zero_and_may_be_negative():
    world = World(16, difference=0.0)
    world.factor = world.reference.factor
    scores = [frechet_interval(shards_of(world.draw(100)), world.reference) for _ in range(60)]
    values = [score.fid_inf for score in scores if score.fid_inf is not None]
    assert len(values) == 60
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(60)
    assert min(values) < 0.0
    assert min(score.fid for score in scores) > 0.2  # the plug-in's bias


def test_a_score_holds_the_plug_in_distance_and_what_pairs_need():
    world = World(8)
    x = world.draw(103)  # unequal shards
    reference = FeatureMoments.from_features(world.draw(90))
    score = frechet_interval(shards_of(x), Reference.of(reference))
    whole = frechet_distance(FeatureMoments.from_features(x), reference)
    assert score.fid == pytest.approx(whole, rel=1e-10)
    assert score.sizes == (11, 11, 11, 10, 10, 10, 10, 10, 10, 10)
    found = jackknife(score.fid, score.loo, score.sizes)
    assert (score.fid_low, score.fid_high) == (max(found.low, 0.0), found.high)
    assert score.loo_inf is not None
    assert score.fid_inf_raw is not None
    infinite = jackknife(score.fid_inf_raw, score.loo_inf, score.sizes)
    assert score.fid_inf == infinite.bias_corrected


def test_the_low_end_of_fid_stops_at_zero():
    x = np.random.default_rng(0).normal(size=(40, 1))
    reference = Reference.of(FeatureMoments.from_features(x))
    score = frechet_interval(shards_of(x), reference)
    assert score.fid_low == 0.0
    assert score.fid_high is not None
    assert score.fid_high > 0.0


@pytest.mark.parametrize(("n", "known"), [(8, False), (11, False), (12, True), (40, True)])
def test_fid_inf_needs_more_images_than_features_even_without_a_shard(n, known):
    # Two shards of n/2 (the larger 6 of 11 and of 12): d = 4 needs n - 6 - 1 > 4, that is 12.
    x = np.random.default_rng(0).normal(size=(n, 4))
    sizes = {8: 4, 11: 6, 12: 6, 40: 20}[n]
    shards = [FeatureMoments.from_features(part) for part in (x[:sizes], x[sizes:])]
    score = frechet_interval(shards, World(4).reference)
    assert (score.fid_inf is not None) is known
    assert (score.loo_inf is not None) is known
    assert score.fid_low is not None


def test_one_shard_has_a_distance_but_no_interval():
    world = World(4)
    score = frechet_interval(shards_of(world.draw(50), 1), world.reference)
    assert score.fid > 0.0
    bounds = (score.fid_low, score.fid_high, score.fid_inf, score.fid_inf_low, score.fid_inf_high)
    assert bounds == (None,) * 5
    assert score.loo == ()


def test_no_shard_or_too_few_images_are_refused():
    world = World(4)
    with pytest.raises(ValueError, match="at least 1 group"):
        frechet_interval([], world.reference)
    with pytest.raises(ValueError, match="at least 6"):
        frechet_infinity(FeatureMoments.from_features(world.draw(5)), world.reference)


def test_shared_noise_makes_a_small_difference_visible():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=200)
    a, b = noise + 0.05 * rng.normal(size=200), noise - 0.1
    loo_a, loo_b = (leave_out(values, [20] * 10, np.mean) for values in (a, b))
    found = paired_difference(loo_a, loo_b, a.mean(), b.mean())
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert found.p_value < 1e-3
    assert 0.0 < found.low < 0.1 < found.high
    assert found.se < 0.2 * jackknife(a.mean(), loo_a).se


def test_a_paired_difference_of_means_is_the_paired_t_test():
    from scipy.stats import ttest_rel

    a, b = np.random.default_rng(0).normal(size=(2, 15))
    loo_a, loo_b = (leave_out(values, [1] * 15, np.mean) for values in (a, b))
    found = paired_difference(loo_a, loo_b, a.mean(), b.mean())
    expected = ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-9)


def test_equal_cells_do_not_differ_and_a_certain_difference_is_certain():
    loo = [1.0, 2.0, 3.0]
    assert paired_difference(loo, loo, 2.0, 2.0).p_value == 1.0
    assert paired_difference(loo, [0.0, 1.0, 2.0], 2.0, 1.0).p_value == 0.0


def test_cells_of_different_shards_are_no_pairs():
    with pytest.raises(ValueError, match="2 and 3 groups"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], 1.0, 1.0)
