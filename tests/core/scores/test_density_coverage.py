"""Density, coverage, Vendi: brute force, closed forms, and what their intervals hold."""

from __future__ import annotations

import numpy as np
import pytest

from ddim_core.scores.alone.vendi import vendi_score
from ddim_core.scores.cell_score import CellScore, score_features
from ddim_core.scores.density_coverage import Neighbourhoods
from ddim_core.scores.precision_recall import Manifold
from ddim_core.statistics import pairs
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.pairs import look_at_pairs
from ddim_core.statistics.rows import FeatureRows

MOST = np.random.default_rng(5).normal(size=(24, 24)) / 5


def drawn(n: int, seed: int, shift: float = 0.0, d: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) * (1.0 - shift) + shift


def near(real: np.ndarray, made: np.ndarray, groups: list[slice], k: int = 5) -> Neighbourhoods:
    manifold = Manifold.of(real, 3, k)
    found = Neighbourhoods(manifold, groups, k)
    look_at_pairs(FeatureRows.of_array(made), FeatureRows.of_array(real), manifold.origin, [found])
    return found


def by_hand(real: np.ndarray, made: np.ndarray, k: int = 5) -> tuple[float, float]:
    within = np.linalg.norm(real[:, None] - real, axis=-1)
    inside = np.linalg.norm(real[:, None] - made, axis=-1) < np.sort(within, axis=1)[:, k, None]
    return float(inside.sum(axis=0).mean() / k), float(inside.any(axis=1).mean())


def test_both_are_those_of_all_pairs_and_of_all_pairs_but_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, made = drawn(120, 0), drawn(90, 1, 0.2)
    groups = [slice(0, 20), slice(20, 55), slice(55, 90)]
    found = near(real, made, groups).score()
    density, coverage = by_hand(real, made)
    assert (found.density, found.coverage) == (pytest.approx(density, rel=1e-12), coverage)
    # The interval is the jackknife of exactly these.
    sizes = [20, 35, 35]
    rest = [by_hand(real, np.delete(made, np.r_[g], axis=0)) for g in groups]
    expected = jackknife(density, [one[0] for one in rest], sizes)
    assert found.density_high == pytest.approx(expected.high, rel=1e-12)
    expected = jackknife(coverage, [one[1] for one in rest], sizes)
    assert found.coverage_low == pytest.approx(expected.low, rel=1e-12)
    monkeypatch.setattr(pairs, "BLOCK", 30)
    monkeypatch.setattr(pairs, "TILE", 7)
    assert near(real, made, groups).score() == found


def test_a_neighbourhood_ends_before_its_furthest_neighbour() -> None:
    real = 2.0 * np.arange(5.0)[:, None]  # k = 1: neighbourhoods of radius 2
    at_its_end = near(real, np.array([[-2.0], [10.0]]), [slice(0, 2)], 1).score()
    assert (at_its_end.density, at_its_end.coverage) == (0.0, 0.0)
    inside = near(real, np.array([[-1.5], [10.0]]), [slice(0, 2)], 1).score()
    assert (inside.density, inside.coverage) == (0.5, 0.2)


def test_a_set_far_away_covers_nothing_and_coverage_then_has_no_interval() -> None:
    found = near(drawn(50, 0), drawn(40, 1) + 100.0, [slice(0, 20), slice(20, 40)]).score()
    assert (found.density, found.coverage, found.coverage_low) == (0.0, 0.0, None)


def test_vendi_counts_directions() -> None:
    one = np.repeat(np.eye(8)[:4], 30, axis=0) * 3.0  # four directions, equally often
    by_features = vendi_score(FeatureRows.of_array(one), [slice(0, 120)])
    by_images = vendi_score(FeatureRows.of_array(np.eye(200)[:4]), [slice(0, 4)])
    assert by_features.value == pytest.approx(4.0, rel=1e-12)
    assert by_images.value == pytest.approx(4.0, rel=1e-12)
    same = vendi_score(FeatureRows.of_array(np.ones((9, 3))), [slice(0, 9)])
    assert same.value == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("d", [3, 60])  # by the features' products, and by the images'
def test_vendis_interval_is_the_jackknife_of_its_logarithm_without_each_group(d: int) -> None:
    rows, groups = drawn(40, 3, 0.0, d), [slice(0, 10), slice(10, 25), slice(25, 40)]

    def entropy(x: np.ndarray) -> float:
        u = x / np.linalg.norm(x, axis=1, keepdims=True)
        values = np.linalg.eigvalsh(u @ u.T / len(u))
        values = values[values > 1e-14]
        return float(-(values * np.log(values)).sum())

    rest = [entropy(np.delete(rows, np.r_[group], axis=0)) for group in groups]
    expected = jackknife(entropy(rows), rest, [10, 15, 15])
    found = vendi_score(FeatureRows.of_array(rows), groups)
    assert found.value == pytest.approx(np.exp(entropy(rows)))
    assert (found.low, found.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))


def test_vendi_is_null_where_it_cannot_be_or_costs_too_much() -> None:
    with_black = np.vstack([np.zeros(3), np.ones((5, 3))])
    assert vendi_score(FeatureRows.of_array(with_black), [slice(0, 6)]).value is None
    many = FeatureRows.of_array(np.ones((1025, 1025), dtype=np.float32))
    assert vendi_score(many, [slice(0, 1025)]).value is None


@pytest.mark.parametrize("world", ["gauss", "relu"])
def test_their_intervals_hold_the_mean_of_all_draws(world: str) -> None:
    """At least 87 of 100: 95 less 3.6 standard deviations of a binomial. The intervals of coverage
    and Vendi are wide, and hold more."""

    def images(n: int, seed: int, shift: float) -> np.ndarray:
        rows = drawn(n, seed, shift, 24)
        return rows if world == "gauss" else np.maximum(rows @ MOST + 0.2, 0.0) + 0.01

    real = images(250, 0, 0.0)
    scores = [score_features(np.split(images(200, 1000 + i, 0.1), 20), real) for i in range(100)]
    for name in ("density", "coverage", "vendi"):
        truth = np.mean([getattr(score, name) for score in scores])
        held = [_holds(score, name, truth) for score in scores]
        assert np.mean(held) >= 0.87, (name, np.mean(held))


def _holds(score: CellScore, name: str, truth: float) -> bool:
    return bool(getattr(score, f"{name}_low") <= truth <= getattr(score, f"{name}_high"))
