"""The kernel distance: closed forms, unbiasedness, and the two ways to sum."""

import tracemalloc

import numpy as np
import pytest

from ddim_core.scores.cell_score import groups_of
from ddim_core.scores.distances.kernel import Kernel, kid, mmd2_unbiased, usual_subset_size
from ddim_core.scores.distances.kernel_score import kernel_score
from ddim_core.statistics.rows import FeatureRows


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


def loops(x: np.ndarray, y: np.ndarray) -> float:
    def k(a, b):
        return (a @ b / len(a) + 1.0) ** 3

    def within(z):
        pairs = [k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return np.mean(pairs)

    return within(x) + within(y) - 2.0 * np.mean([k(a, b) for a in x for b in y])


def test_the_estimate_is_the_mean_over_pairs_at_unequal_counts():
    x, y = features(9, 4, 0), features(13, 4, 1, 0.5)
    assert mmd2_unbiased(x, y) == pytest.approx(loops(x, y), rel=1e-12)


def test_a_linear_kernel_gives_the_squared_distance_of_means_without_its_bias():
    x, y = features(30, 3, 0), features(40, 3, 1, 1.0)
    linear = Kernel(degree=1, gamma=1.0, coef0=0.0)
    plug_in = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
    bias = x.var(axis=0, ddof=1).sum() / 30 + y.var(axis=0, ddof=1).sum() / 40
    assert mmd2_unbiased(x, y, linear) == pytest.approx(plug_in - bias, rel=1e-12)


def test_the_estimate_has_mean_zero_for_equal_distributions():
    values = [mmd2_unbiased(features(20, 4, s), features(20, 4, 1000 + s)) for s in range(400)]
    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 4.0 * standard_error
    assert min(values) < 0.0


@pytest.mark.parametrize("subsets", [3, 40])
def test_both_ways_to_sum_average_the_same_subsets(subsets):
    # 3 subsets of 30 among 100 are summed one by one, 40 of them from whole matrices.
    x, y = features(100, 8, 0), features(90, 8, 1, 0.3)
    random = np.random.RandomState(7)
    values = []
    for _ in range(subsets):
        i, j = (random.choice(count, 30, replace=False) for count in (100, 90))
        values.append(loops(x[i], y[j]))
    mean, std = kid(x, y, subsets=subsets, subset_size=30, seed=7)
    assert mean == pytest.approx(np.mean(values), rel=1e-11)
    assert std == pytest.approx(np.std(values), rel=1e-11)


def test_subsets_of_everything_are_the_full_estimate():
    x, y = features(40, 5, 0), features(40, 5, 1, 0.2)
    mean, std = kid(x, y, subsets=4, subset_size=40)
    assert mean == pytest.approx(mmd2_unbiased(x, y), rel=1e-11)
    assert std < 1e-13  # permutations of one set differ by rounding only


def test_the_seed_chooses_the_subsets():
    x, y = features(60, 5, 0), features(60, 5, 1)
    one, again, other = (kid(x, y, 5, 20, seed=seed) for seed in (1, 1, 2))
    assert one == again != other


def test_the_kernels_parameters_reach_it():
    x, y = features(40, 5, 0), features(40, 5, 1, 0.2)
    mean, _ = kid(x, y, subsets=2, subset_size=40, degree=2, gamma=0.3, coef0=0.5)
    expected = mmd2_unbiased(x, y, Kernel(degree=2, gamma=0.3, coef0=0.5))
    assert mean == pytest.approx(expected, rel=1e-11)
    assert mean != pytest.approx(mmd2_unbiased(x, y), rel=0.01)


@pytest.mark.parametrize("size", [1, 41, 1000])
def test_a_subset_that_does_not_fit_is_refused(size):
    with pytest.raises(ValueError, match=f"subset_size is {size}"):
        kid(features(50, 2, 0), features(40, 2, 1), subset_size=size)


def test_inputs_that_cannot_be_compared_are_refused():
    x = features(10, 2, 0)
    with pytest.raises(ValueError, match="2 and 3 columns"):
        mmd2_unbiased(x, features(10, 3, 0))
    with pytest.raises(ValueError, match="at least 2"):
        mmd2_unbiased(x[:1], x)
    with pytest.raises(ValueError, match="subsets is 0"):
        kid(x, x, subsets=0, subset_size=5)


def test_the_usual_subset_is_a_thousand_or_all_there_is():
    assert usual_subset_size(5000, 2000) == 1000
    assert usual_subset_size(300, 5000) == 300
    assert usual_subset_size(5000, 64) == 64


def test_memory_hardly_grows_with_the_images():
    peaks = []
    for n in (2048, 8192):  # whole blocks
        made = FeatureRows.of_array(np.random.default_rng(0).normal(size=(n, 2)))
        groups = groups_of(made)
        tracemalloc.start()
        kernel_score(made, groups, FeatureRows.of_array(made.shards[0][:1200]))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 240 bytes an image; with numbers in place of bytes as indicators it was 1,920.
    assert (peaks[1] - peaks[0]) / (8192 - 2048) < 600
