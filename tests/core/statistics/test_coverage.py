"""Intervals and the paired test, by simulation: they are right as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from ddim_core.decisions.compare import difference
from ddim_core.scores.distances.frechet_infinity import chong_forsyth
from ddim_core.scores.distances.frechet_score import FrechetScore, frechet_score
from ddim_core.scores.distances.kernel_score import kernel_score
from ddim_core.statistics.rows import FeatureRows, places
from tests.core.rows import cell_row
from tests.core.worlds import World

GROUPS, DRAWS = 20, 250
# 95 %, with a standard error of 1.4 % over 250 draws: four below. Above, 100 % is 3.6 of them off,
# and intervals that never fail would be too wide to be of use: at least one of 250 must fail.
BAND = (0.95 - 4 * 0.0138, 0.998)


def scored(world: World, x: np.ndarray) -> FrechetScore:
    return frechet_score(FeatureRows.of_array(x), groups(len(x)), world.reference)


def groups(n: int) -> list[slice]:
    return places(n, -(-n // GROUPS))


@pytest.mark.parametrize("kind", ["gauss", "t6", "ellip"])
@pytest.mark.parametrize("n", [640, 160])  # d / N = 0.1 and 0.4
def test_both_intervals_of_the_frechet_distance_cover_what_they_are_of(n: int, kind: str) -> None:
    """The plug-in's is of its own mean at n images; fid_inf's is of the truth."""
    world = World(64)
    scores = [scored(world, world.draw(n, kind)) for _ in range(DRAWS)]
    mean = np.mean([score.fid for score in scores])
    plug_in = np.mean([score.fid_low <= mean <= score.fid_high for score in scores])
    infinite = np.mean([s.fid_inf_low <= world.truth <= s.fid_inf_high for s in scores])
    assert BAND[0] <= plug_in <= BAND[1]
    assert BAND[0] <= infinite <= BAND[1]
    # The bias that fid_inf has lost is many times the interval's half width at d / N = 0.4.
    half_width = np.mean([score.fid_high - score.fid for score in scores])
    assert mean - world.truth > (0.8 if n == 640 else 4.0) * half_width


def test_the_plug_in_interval_covers_with_fewer_images_than_features() -> None:
    world = World(64)
    scores = [scored(world, world.draw(48)) for _ in range(DRAWS)]
    assert all(score.fid_inf is None for score in scores)
    mean = np.mean([score.fid for score in scores])
    assert BAND[0] <= np.mean([s.fid_low <= mean <= s.fid_high for s in scores]) <= BAND[1]


def test_equal_cells_are_called_different_at_about_the_level() -> None:
    """A/A: two cells of one truth whose features are correlated by 0.81, as by shared noise."""
    world, alarms, unpaired_width, paired_width = World(32), 0, [], []
    for _ in range(DRAWS):
        noise = world.draw(500)
        rows = []
        for _ in range(2):
            score = scored(world, 0.9 * noise + np.sqrt(1 - 0.81) * world.draw(500))
            loo, sizes = list(score.loo), list(score.sizes)
            rows.append(cell_row(fid=score.fid, fid_leave_one_out=loo, group_sizes=sizes))
            unpaired_width.append(score.fid_high - score.fid)
        test = difference(*rows)
        alarms += test.p_value < 0.05
        paired_width.append(test.high - test.value)
    # 12.5 of 250 are expected, with a standard error of 3.4: three of them each way.
    assert 12.5 - 3 * 3.4 <= alarms <= 12.5 + 3 * 3.4
    # Worth the pairing: squares of features are correlated by 0.66, so that the difference scatters
    # by sqrt(2 (1 - 0.66)) = 0.83 of one distance; unpaired it would be sqrt(2).
    assert np.mean(paired_width) < np.mean(unpaired_width)


def test_the_interval_of_kid_covers_the_truth() -> None:
    rng, d, shift = np.random.default_rng(5), 16, 0.3
    real = rng.standard_normal((4000, d)).astype(np.float32)
    reference = FeatureRows.of_array(real)
    values, errors = [], []
    # Of the reference as given: the mean over draws is the truth.
    for _ in range(DRAWS):
        x = FeatureRows.of_array(rng.standard_normal((200, d)) + shift)
        score = kernel_score(x, groups(200), reference)
        values.append(score.kid)
        errors.append(score)
    truth = np.mean(values)
    held = np.mean([s.kid_low <= truth <= s.kid_high for s in errors])
    assert BAND[0] <= held <= BAND[1]
    # The error is that of the mean; the spread between subsets says something else.
    assert np.mean([s.kid_se for s in errors]) == pytest.approx(np.std(values), rel=0.15)


def test_a_straight_line_through_sample_sizes_leaves_the_bias_that_is_not_of_order_one_over_n():
    world = World(64)
    lines, ours = [], []
    for seed in range(40):
        x = world.draw(160)
        lines.append(chong_forsyth(x, world.reference, seed=seed) - world.truth)
        ours.append(scored(world, x).fid_inf - world.truth)
    # Measured over 300 draws: +0.7 and 0.0, where one draw scatters by 0.65.
    assert np.mean(lines) > 0.3
    assert abs(np.mean(ours)) < 4 * 0.65 / np.sqrt(40)
    few = world.draw(3000)
    assert chong_forsyth(few, world.reference) == pytest.approx(scored(world, few).fid_inf, abs=0.3)


def test_a_line_that_cannot_be_drawn_is_refused() -> None:
    world = World(4)
    with pytest.raises(ValueError, match="points is 1"):
        chong_forsyth(world.draw(50), world.reference, points=1)
    for fewest in (1, 50):
        with pytest.raises(ValueError, match=f"fewest is {fewest}"):
            chong_forsyth(world.draw(50), world.reference, fewest=fewest)
