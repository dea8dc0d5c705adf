"""Means of one number an image: closed forms of Student's interval, and what pairing cancels."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ddim_core.image_scores.mean import FEWEST_PROMPTS, image_by_image, mean_score
from ddim_core.statistics.paired import paired_difference

RANDOM = np.random.default_rng(0)


def test_interval_of_images_is_students() -> None:
    n = 40
    x = RANDOM.normal(3.0, 2.0, n)
    found = mean_score(x, [10] * 4)
    t = stats.t.interval(0.95, n - 1, loc=x.mean(), scale=x.std(ddof=1) / np.sqrt(n))
    assert (found.low, found.high) == pytest.approx(t, rel=1e-12)
    without = [np.delete(x, np.s_[i : i + 10]).mean() for i in range(0, n, 10)]
    assert found.leave_one_out == pytest.approx(without, rel=1e-12)
    assert found.group_sizes == [10] * 4


def test_interval_of_several_images_a_prompt_is_students_of_the_prompts_means() -> None:
    n_prompts, each = 12, 5
    prompts = np.tile(RANDOM.normal(0.0, 1.0, n_prompts), each)
    x = prompts + RANDOM.normal(0.0, 0.1, n_prompts * each)
    found = mean_score(x, [n_prompts * each], n_prompts)
    means = x.reshape(each, n_prompts).mean(axis=0)
    scale = means.std(ddof=1) / np.sqrt(n_prompts)
    t = stats.t.interval(0.95, n_prompts - 1, loc=means.mean(), scale=scale)
    assert (found.value, found.low, found.high) == pytest.approx((means.mean(), *t), rel=1e-12)
    assert found.leave_one_out is None  # one group
    # Groups that paired tests leave out are of whole prompts, as many as the cell has at most.
    grouped = mean_score(x, [20] * 3, n_prompts)
    assert grouped.leave_one_out is not None
    assert grouped.group_sizes == [20, 20, 20]
    without = [x[np.arange(60) % 12 // 4 != g].mean() for g in range(3)]
    assert grouped.leave_one_out == pytest.approx(without, rel=1e-12)
    assert mean_score(x, [3] * 20, n_prompts).group_sizes == [5] * 12
    # As if images were independent the interval would be less than half as wide.
    wrong = mean_score(x, [n_prompts * each])
    assert wrong.high - wrong.low < 0.5 * (found.high - found.low)
    # One prompt, or too few: the interval is of other noise for the same ones.
    least = mean_score(x, [n_prompts * each], FEWEST_PROMPTS)
    assert least.high - least.low != pytest.approx(wrong.high - wrong.low, rel=0.01)
    few = mean_score(x, [n_prompts * each], 4)
    assert (few.low, few.high) == (wrong.low, wrong.high)


def test_a_paired_interval_over_prompts_covers_where_one_over_neighbours_does_not() -> None:
    """One cell is better for some prompts and worse for others, alike in the mean."""
    n_prompts, n, tries = 20, 200, 300
    of, groups = np.arange(n) % n_prompts, [10] * 20
    covered = {"prompts": 0, "neighbours": 0}
    for _ in range(tries):
        shared = RANDOM.normal(0.7, 0.1, n_prompts)[of]
        b = shared + RANDOM.normal(0.0, 0.03, n)
        a = shared + RANDOM.normal(0.0, 0.05, n_prompts)[of] + RANDOM.normal(0.0, 0.03, n)
        for name, told in (("prompts", n_prompts), ("neighbours", None)):
            x, y = mean_score(a, groups, told), mean_score(b, groups, told)
            assert x.leave_one_out is not None
            assert y.leave_one_out is not None
            loo = x.leave_one_out, y.leave_one_out
            found = paired_difference(*loo, x.value, y.value, x.group_sizes)
            covered[name] += found.low <= 0.0 <= found.high
    assert covered["prompts"] / tries > 0.91  # three standard errors below 0.95
    assert covered["neighbours"] / tries < 0.6  # measured with 1000 tries: 0.48


def test_prompts_of_unequal_counts_weigh_by_their_images() -> None:
    x = RANDOM.normal(size=17)  # five prompts: two with four images, three with three
    found = mean_score(x, [17], 5)
    assert found.value == pytest.approx(x.mean())
    assert found.low < found.value < found.high


def test_one_image_has_no_interval_and_what_is_not_finite_is_refused() -> None:
    assert mean_score([2.0], [1]).low is None
    with pytest.raises(ValueError, match="1 values that are not finite"):
        mean_score([1.0, np.nan], [2])
    with pytest.raises(ValueError, match="groups have 3 images; there are 2 values"):
        mean_score([1.0, 2.0], [3])


def test_pairs_cancel_what_pictures_share_and_agree_with_students_paired_test() -> None:
    shared = RANDOM.normal(0.0, 1.0, 200)
    a = shared + RANDOM.normal(0.03, 0.05, 200)
    b = shared + RANDOM.normal(0.0, 0.05, 200)
    found = image_by_image(a, b)
    assert found is not None
    test = stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(test.pvalue, rel=1e-9)
    assert found.value == pytest.approx((a - b).mean(), rel=1e-9)
    assert found.se == pytest.approx((a - b).std(ddof=1) / np.sqrt(200), rel=1e-9)
    assert stats.ttest_ind(a, b).pvalue > 0.5 > 0.01 > found.p_value
    # Several images a prompt: a paired test of the prompts' means.
    by_prompt = image_by_image(a, b, 20)
    assert by_prompt is not None
    means = (a - b).reshape(10, 20).mean(axis=0)
    assert by_prompt.p_value == pytest.approx(stats.ttest_1samp(means, 0.0).pvalue, rel=1e-9)
    assert image_by_image([1.0], [2.0]) is None
    with pytest.raises(ValueError, match="2 and 1 values"):
        image_by_image([1.0, 2.0], [1.0])
