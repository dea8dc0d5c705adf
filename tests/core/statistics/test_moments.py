"""Moments: exact on closed forms, stable at large means, and additive."""

import numpy as np
import pytest

from ddim_core.statistics.moments import FeatureMoments, leave_one_out, merge

# Float64 sums of some hundred products of order 1 agree to a few hundred ulp.
ROUNDING = 1e-12


def features(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def assert_same(a: FeatureMoments, b: FeatureMoments, tolerance: float = ROUNDING) -> None:
    assert a.count == b.count
    np.testing.assert_allclose(a.mean, b.mean, rtol=tolerance, atol=tolerance)
    scale = np.abs(b.scatter).max()
    np.testing.assert_allclose(a.scatter, b.scatter, rtol=0, atol=tolerance * scale)


def test_moments_of_three_points_by_hand():
    moments = FeatureMoments.from_features([[0.0, 0.0], [2.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(moments.mean, [1.0, 1.0])
    np.testing.assert_array_equal(moments.scatter, [[2.0, 0.0], [0.0, 6.0]])
    np.testing.assert_array_equal(moments.covariance, [[1.0, 0.0], [0.0, 3.0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_covariance_is_numpys_in_float64_whatever_the_features_type(dtype):
    x = features(300, 5).astype(dtype)
    moments = FeatureMoments.from_features(x)
    expected = np.cov(x.astype(np.float64), rowvar=False)
    assert moments.covariance.dtype == np.float64
    np.testing.assert_allclose(moments.covariance, expected, rtol=0, atol=ROUNDING)


def test_a_large_common_mean_costs_no_digits():
    # 2^30 + k/1024 is exact in float64, so shifting back gives the same features.
    x = np.round(features(5000, 3) * 1024) / 1024
    plain, shifted = FeatureMoments.from_features(x), FeatureMoments.from_features(x + 2.0**30)
    np.testing.assert_allclose(shifted.scatter, plain.scatter, rtol=1e-12, atol=1e-9)


def test_a_constant_column_has_no_scatter_at_all_even_after_merging():
    x = features(5001, 3)
    x[:, 1] = 0.1  # has no finite binary expansion
    merged = merge([FeatureMoments.from_features(part) for part in np.array_split(x, 7)])
    for moments in (FeatureMoments.from_features(x), merged):
        assert not moments.scatter[1].any()
        assert moments.mean[1] == 0.1


@pytest.mark.parametrize("split", [1, 2, 199])
def test_moments_of_a_concatenation_are_the_merged_moments(split):
    x = features(200, 6) + 100.0
    a, b = FeatureMoments.from_features(x[:split]), FeatureMoments.from_features(x[split:])
    assert_same(a + b, FeatureMoments.from_features(x))


def test_merging_is_commutative_and_associative_within_rounding():
    a, b, c = (FeatureMoments.from_features(features(n, 4, n) + n) for n in (3, 50, 7))
    assert_same(a + b, b + a)
    assert_same((a + b) + c, a + (b + c))


def test_a_fixed_order_of_merging_gives_equal_bits():
    groups = [FeatureMoments.from_features(part) for part in np.array_split(features(90, 4), 9)]
    once, again = merge(groups), merge(groups)
    assert once.mean.tobytes() == again.mean.tobytes()
    assert once.scatter.tobytes() == again.scatter.tobytes()


@pytest.mark.parametrize("n_groups", [2, 3, 8, 11])
def test_leave_one_out_is_the_moments_of_all_other_rows_in_order(n_groups):
    parts = np.array_split(features(60, 3), n_groups)
    rests = list(leave_one_out([FeatureMoments.from_features(part) for part in parts]))
    assert len(rests) == n_groups
    for left_out, rest in enumerate(rests):
        others = np.concatenate([p for i, p in enumerate(parts) if i != left_out])
        assert_same(rest, FeatureMoments.from_features(others))


def test_leaving_out_a_group_that_holds_nearly_all_the_scatter_keeps_the_digits():
    quiet = features(40, 3)
    groups = [quiet[:20], quiet[20:], features(20, 3, 1) * 1e9]
    *_, rest = leave_one_out([FeatureMoments.from_features(g) for g in groups])
    # Total minus group would be wrong by eps * 1e19, a thousand times the scatter that is left.
    assert_same(rest, FeatureMoments.from_features(quiet))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_is_refused_by_row_and_column(bad):
    x = features(10, 4)
    x[7, 2] = x[8, 0] = bad
    with pytest.raises(ValueError, match=r"features\[7, 2\]"):
        FeatureMoments.from_features(x)


@pytest.mark.parametrize(
    "x", [np.zeros(3), np.zeros((0, 3)), np.zeros((3, 0)), np.zeros((2, 2, 2))]
)
def test_features_that_are_no_filled_matrix_are_refused(x):
    with pytest.raises(ValueError, match="must be"):
        FeatureMoments.from_features(x)


def test_complex_features_are_refused():
    with pytest.raises(ValueError, match="complex"):
        FeatureMoments.from_features(np.zeros((2, 2), dtype=complex))


def test_features_whose_squares_overflow_are_refused():
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="overflow"):
        FeatureMoments.from_features([[1e200], [-1e200]])


def test_one_row_has_moments_but_no_covariance():
    moments = FeatureMoments.from_features([[1.0, 2.0]])
    assert moments.count == 1
    assert not moments.scatter.any()
    with pytest.raises(ValueError, match="at least 2"):
        _ = moments.covariance


def test_moments_of_different_width_do_not_merge():
    with pytest.raises(ValueError, match="2 and 3 columns"):
        _ = FeatureMoments.from_features(features(4, 2)) + FeatureMoments.from_features(
            features(4, 3)
        )


def test_moments_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="count is 0"):
        FeatureMoments(0, np.zeros(2), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="must be"):
        FeatureMoments(3, np.zeros(2), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="at least 1 group"):
        merge([])
    with pytest.raises(ValueError, match="at least 2 groups"):
        list(leave_one_out([FeatureMoments.from_features(features(4, 2))]))
