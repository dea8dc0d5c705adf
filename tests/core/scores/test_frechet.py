"""The Frechet distance: closed forms, invariances, and every way a covariance is deficient."""

import numpy as np
import pytest

from ddim_core.scores.distances.frechet import Reference, covariance_factor, frechet_distance
from ddim_core.statistics.moments import FeatureMoments

# Traces of order 10 to 100 summed in float64, with factors whose relative error is about d eps.
ROUNDING = 1e-10


def moments_of(x: np.ndarray) -> FeatureMoments:
    return FeatureMoments.from_features(x)


def gaussian_moments(mean: np.ndarray, covariance: np.ndarray, n: int = 1000) -> FeatureMoments:
    return FeatureMoments(n, mean, covariance * (n - 1))


def features(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + rng.normal(size=d)


def test_commuting_gaussians_have_the_closed_form():
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    a, b = rng.exponential(size=12), rng.exponential(size=12)
    mean_a, mean_b = rng.normal(size=(2, 12))
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    value = frechet_distance(
        gaussian_moments(mean_a, rotation * a @ rotation.T),
        gaussian_moments(mean_b, rotation * b @ rotation.T),
    )
    assert value == pytest.approx(expected, abs=ROUNDING)


def test_two_by_two_gaussians_that_do_not_commute_have_the_closed_form():
    # In two dimensions tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)).
    a, b = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, -0.5], [-0.5, 4.0]])
    root = np.sqrt(np.trace(a @ b) + 2.0 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
    value = frechet_distance(gaussian_moments(np.zeros(2), a), gaussian_moments(np.zeros(2), b))
    assert value == pytest.approx(np.trace(a) + np.trace(b) - 2.0 * root, abs=ROUNDING)


@pytest.mark.parametrize(("n", "d"), [(100, 8), (5, 8), (2, 8), (30, 1)])
def test_a_set_has_no_distance_to_itself(n, d):
    a = moments_of(features(n, d))
    assert 0.0 <= frechet_distance(a, a) <= ROUNDING


@pytest.mark.parametrize(("n", "m"), [(100, 90), (5, 90), (5, 4)])
def test_the_distance_is_symmetric_and_invariant_under_rotation_and_shift(n, m):
    x, y = features(n, 10, 1), features(m, 10, 2)
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 10)))
    value = frechet_distance(moments_of(x), moments_of(y))
    assert frechet_distance(moments_of(y), moments_of(x)) == pytest.approx(value, abs=ROUNDING)
    moved = frechet_distance(moments_of(x @ rotation + 5.0), moments_of(y @ rotation + 5.0))
    assert moved == pytest.approx(value, abs=ROUNDING)


def test_scaling_the_features_squares_into_the_distance():
    x, y = features(80, 6, 1), features(70, 6, 2)
    value = frechet_distance(moments_of(x), moments_of(y))
    # A power of two only moves exponents.
    assert frechet_distance(moments_of(x * 4), moments_of(y * 4)) == pytest.approx(16 * value)


@pytest.mark.parametrize(("n", "m"), [(200, 150), (10, 150), (10, 8), (2, 3)])
def test_the_three_routes_agree(n, m):
    x, reference = features(n, 20, 1), Reference.of(moments_of(features(m, 20, 2)))
    value = reference.distance(moments_of(x))
    assert reference.distance_of_features(x) == pytest.approx(value, abs=ROUNDING)
    # Eigenvalues of order eps have roots of order 1e-8, a few of them per case.
    assert reference.resampled_distance(moments_of(x)) == pytest.approx(value, abs=1e-6)


def test_dead_and_doubled_features_leave_no_trace_of_rounding():
    x, y = features(60, 5, 1), features(50, 5, 2)
    value = frechet_distance(moments_of(x), moments_of(y))

    def widened(rows: np.ndarray) -> FeatureMoments:
        dead = np.full((len(rows), 3), 0.1)
        return moments_of(np.hstack([rows, dead, rows]))

    # Every feature twice: both covariances and the squared mean difference count double.
    assert frechet_distance(widened(x), widened(y)) == pytest.approx(2 * value, abs=ROUNDING)


def test_a_feature_of_tiny_variance_keeps_its_digits_beside_a_large_one():
    x, y = features(60, 3, 1), features(50, 3, 2)
    scale = np.array([1.0, 1e-7, 1e-14])
    correlation = np.corrcoef(x * scale, rowvar=False)
    factor = covariance_factor(moments_of(x * scale)) / np.std(x * scale, axis=0, ddof=1)[:, None]
    np.testing.assert_allclose(factor @ factor.T, correlation, rtol=0, atol=1e-12)
    assert frechet_distance(moments_of(x * scale), moments_of(y * scale)) > 0.0


@pytest.mark.parametrize("seed", range(5))
def test_dependent_features_have_the_rank_and_the_distance_of_their_coordinates(seed):
    rng = np.random.default_rng(seed)
    plane, _ = np.linalg.qr(rng.normal(size=(20, 12)))  # orthonormal columns keep distances
    x, y = features(1000, 12, seed), features(900, 12, seed + 50)
    flat, full = moments_of(x @ plane.T), moments_of(features(900, 20, seed + 90))
    assert covariance_factor(flat).shape == (20, 12)
    expected = frechet_distance(moments_of(x), moments_of(y))
    assert frechet_distance(flat, moments_of(y @ plane.T)) == pytest.approx(expected, abs=ROUNDING)
    # Against a reference that does vary off the plane, each false direction would cost 1e-8.
    by_features = Reference.of(full).distance_of_features(x @ plane.T)
    in_plane = FeatureMoments(
        1000, x.mean(axis=0) @ plane.T, plane @ moments_of(x).scatter @ plane.T
    )
    assert frechet_distance(flat, full) == pytest.approx(
        frechet_distance(in_plane, full), abs=ROUNDING
    )
    assert by_features == pytest.approx(frechet_distance(flat, full), abs=ROUNDING)


def test_rounding_never_counts_as_rank():
    # LAPACK's own tolerance, d eps / 2, finds a false sixth direction in 10 of these 60 sets.
    for seed in range(60):
        x = features(60, 5, seed) @ np.random.default_rng(seed).normal(size=(5, 9))
        assert covariance_factor(moments_of(x)).shape == (9, 5)


def test_nearly_equal_features_keep_their_difference():
    a, difference = np.random.default_rng(0).normal(size=(2, 50))
    moments = moments_of(np.stack([a, a + 1e-5 * difference], axis=1))
    assert covariance_factor(moments).shape == (2, 2)


@pytest.mark.parametrize("n", [2, 3, 7])
def test_a_factor_has_the_rank_that_n_vectors_can_span(n):
    moments = moments_of(features(n, 9))
    factor = covariance_factor(moments)
    assert factor.shape == (9, n - 1)
    np.testing.assert_allclose(factor @ factor.T, moments.covariance, rtol=0, atol=ROUNDING)


def test_sets_without_any_spread_are_apart_by_their_means_alone():
    a, b = np.zeros((4, 3)), np.full((5, 3), 2.0)
    reference = Reference.of(moments_of(b))
    assert frechet_distance(moments_of(a), moments_of(b)) == 12.0
    assert reference.resampled_distance(moments_of(a)) == 12.0
    assert reference.distance_of_features(a) == 12.0


def test_one_image_or_another_extractor_is_refused():
    reference = Reference.of(moments_of(features(10, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        reference.distance(moments_of(features(1, 4)))
    with pytest.raises(ValueError, match="at least 2"):
        reference.distance_of_features(features(1, 4))
    for distance in (reference.distance, reference.resampled_distance):
        with pytest.raises(ValueError, match="5 columns"):
            distance(moments_of(features(10, 5)))


@pytest.mark.parametrize("scatter", [[[1.0, 2.0], [2.0, 1.0]], [[-1.0, 0.0], [0.0, 1.0]]])
def test_a_scatter_that_no_features_have_is_refused(scatter):
    with pytest.raises(ValueError, match=r"indefinite|variance"):
        covariance_factor(FeatureMoments(10, np.zeros(2), np.array(scatter)))


def test_a_scatter_of_more_rank_than_its_count_allows_is_refused():
    with pytest.raises(ValueError, match="rank exceeds"):
        covariance_factor(FeatureMoments(4, np.zeros(4), np.eye(4)))
