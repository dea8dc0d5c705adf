"""The Chamfer distance: by hand, by brute force, and its floor on the swiss roll."""

import numpy as np
import pytest
from sklearn.datasets import make_swiss_roll

from ddim_core.points.chamfer import chamfer_distance


def swiss_roll(seed: int, n: int = 2048) -> np.ndarray:
    points, _ = make_swiss_roll(n, noise=0.0, hole=True, random_state=seed)
    return points[:, [0, 2]]


def test_squares_are_summed_in_both_directions():
    # 0 -> 0: 0, 3 -> 1: 4; back: 0 -> 0: 0, 1 -> 0: 1, -2 -> 0: 4.
    assert chamfer_distance([[0.0], [3.0]], [[0.0], [1.0], [-2.0]]) == 9.0


def test_the_distance_is_that_of_all_pairs_and_symmetric():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70, 3)), rng.normal(size=(50, 3)) + 0.5
    squared = ((a[:, None] - b) ** 2).sum(axis=-1)
    expected = squared.min(axis=0).sum() + squared.min(axis=1).sum()
    assert chamfer_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert chamfer_distance(b, a) == pytest.approx(expected, rel=1e-12)


def test_a_cloud_has_no_distance_to_itself_in_any_order():
    points = swiss_roll(0)
    assert chamfer_distance(points, points[::-1]) == 0.0


def test_two_independent_swiss_rolls_are_the_known_floor_apart():
    # One frame for all: centring each sample by itself would move the curves apart.
    many = swiss_roll(0, 200_000)
    centre, scale = many.mean(axis=0), 2.0 / many.std()
    pairs = [[(swiss_roll(seed) - centre) * scale for seed in (s, 100 + s)] for s in range(20)]
    floors = [chamfer_distance(a, b) for a, b in pairs]
    # Measured: 0.377, each pair spread by 0.024; four standard errors of 20 pairs.
    assert np.mean(floors) == pytest.approx(0.377, abs=0.022)


def test_clouds_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="2 and 3 dimensions"):
        chamfer_distance(np.zeros((4, 2)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="shape"):
        chamfer_distance(np.zeros((0, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"b\[1, 0\]"):
        chamfer_distance(np.zeros((4, 1)), [[0.0], [np.nan]])
