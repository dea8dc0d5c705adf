"""All scores of a cell from its features: which groups, which gaps, agreement with the parts."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray

from ddim_core.scores.cell_score import score_features
from ddim_core.scores.distances.frechet import frechet_distance
from ddim_core.scores.distances.kernel import kid, usual_subset_size
from ddim_core.scores.precision_recall import precision_recall
from ddim_core.statistics.moments import FeatureMoments

Features = NDArray[np.float32]


def normal(n: int, d: int = 4, seed: int = 0, shift: float = 0.0) -> Features:
    drawn = np.random.default_rng(seed).standard_normal((n, d)) + shift
    return drawn.astype(np.float32)


REFERENCE = normal(300, seed=1)


def test_scores_are_those_of_the_parts_on_all_images() -> None:
    generated = normal(120, seed=2, shift=0.5)
    score = score_features(np.split(generated, 12), REFERENCE)
    whole = frechet_distance(
        FeatureMoments.from_features(generated), FeatureMoments.from_features(REFERENCE)
    )
    assert score.fid == pytest.approx(whole, rel=1e-9)  # merging shards rounds in float64
    # The same sums in another order: float64 rounding of kernel values of order 1.
    assert (score.kid, score.kid_std) == pytest.approx(
        kid(generated, REFERENCE, subset_size=usual_subset_size(120, 300)), rel=1e-11, abs=1e-13
    )
    assert score.kid_subset_size == 120
    assert score.n_features == 4
    assert (score.precision, score.recall) == precision_recall(REFERENCE, generated, k=3)
    assert (score.n_images, score.n_reference) == (120, 300)


def test_interval_holds_the_estimate_and_the_truth_is_where_the_shift_says() -> None:
    score = score_features(np.split(normal(400, seed=3, shift=0.5), 10), normal(3000, seed=4))
    assert score.fid_low is not None
    assert score.fid_inf_low is not None
    assert score.fid_low < score.fid < score.fid_high
    assert score.fid_inf_low < 4 * 0.5**2 < score.fid_inf_high  # |difference of means|^2


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([100] * 21, [100] * 21),  # twenty shards or more are the groups
        ([100] * 20, [100] * 20),
        ([50, 50], [5] * 20),  # fewer are cut into at least twenty
        ([100], [5] * 20),
        ([10, 10, 5], [2] * 10 + [3, 2]),  # no group below 2 images
        ([8], [2] * 4),
    ],
)
def test_groups_of_the_jackknife_are_shards_or_pieces_of_them(
    sizes: list[int], groups: list[int]
) -> None:
    shards = [normal(size, seed=i) for i, size in enumerate(sizes)]
    score = score_features(shards, REFERENCE)
    assert score.group_sizes == groups
    assert len(score.fid_leave_one_out) == len(groups)


def test_order_of_images_inside_the_groups_changes_the_distance_by_rounding_only() -> None:
    shards = [normal(20, seed=i) for i in range(20)]
    turned = [shard[::-1].copy() for shard in shards]
    one, other = score_features(shards, REFERENCE), score_features(turned, REFERENCE)
    assert other.fid == pytest.approx(one.fid, rel=1e-9)
    assert other.fid_leave_one_out == pytest.approx(one.fid_leave_one_out, rel=1e-9)


@pytest.mark.parametrize("n", [2, 3])
def test_fewest_images_have_a_distance_but_no_interval(n: int) -> None:
    score = score_features([normal(n)], REFERENCE)
    assert score.fid > 0
    assert score.fid_low is score.fid_high is score.fid_inf is None
    assert score.precision is score.recall is None


def test_too_few_images_for_the_features_leave_the_corrected_distance_open() -> None:
    score = score_features([normal(20, d=40)], normal(300, d=40, seed=1))
    assert score.fid_low is not None
    assert score.fid_inf is score.fid_inf_low is score.fid_inf_high is None


def test_score_is_plain_data_without_nan() -> None:
    for n in (2, 5, 40):
        record = asdict(score_features([normal(n)], REFERENCE))
        assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="2"):
        score_features([normal(1)], REFERENCE)


def test_features_that_are_not_finite_are_refused() -> None:
    broken = normal(20)
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"finite|NaN"):
        score_features([broken], REFERENCE)
