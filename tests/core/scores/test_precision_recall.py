"""Precision and recall: orientation by construction, brute force, and torch-fidelity."""

import importlib.util

import numpy as np
import pytest

from ddim_core.scores.precision_recall import precision_recall
from ddim_core.statistics import pairs


def features(n: int, d: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def brute_force(reference: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    def share(points: np.ndarray, members: np.ndarray) -> float:
        within = np.linalg.norm(members[:, None] - members, axis=-1)
        radius = np.sort(within, axis=1)[:, k]
        return float((np.linalg.norm(points[:, None] - members, axis=-1) <= radius).any(1).mean())

    return share(generated, reference), share(reference, generated)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_shares_are_those_of_all_pairs(k):
    reference, generated = features(120, 6, 0), features(90, 6, 1) * 1.3 + 0.2
    assert precision_recall(reference, generated, k) == brute_force(reference, generated, k)


def test_a_model_that_knows_one_of_two_modes_is_precise_but_recalls_half():
    one, other = features(200, 2, 0), features(200, 2, 1) + 100.0
    precision, recall = precision_recall(np.concatenate([one, other]), features(200, 2, 2))
    # Each single ball misses some tails; both shares of one mode are measured near 0.95.
    assert precision > 0.85
    assert 0.42 < recall <= 0.5


def test_a_set_covers_itself_and_nothing_far_away():
    x = features(50, 4, 0)
    assert precision_recall(x, x) == (1.0, 1.0)
    assert precision_recall(x, x + 1000.0) == (0.0, 0.0)


def test_copies_have_balls_of_radius_zero_that_still_hold_their_own():
    # Four copies of each point: its third neighbour is at 0, and rounding must not hide that.
    points = features(20, 2000, 0)
    copies = np.repeat(points, 4, axis=0)
    assert precision_recall(copies, points) == (1.0, 1.0)
    assert precision_recall(copies, copies + 1e-3) == (0.0, 0.0)


def test_chunks_do_not_change_the_shares(monkeypatch):
    reference, generated = features(120, 6, 0), features(90, 6, 1) * 1.3
    whole = precision_recall(reference, generated)
    monkeypatch.setattr(pairs, "BLOCK", 30)
    monkeypatch.setattr(pairs, "TILE", 7)
    assert precision_recall(reference, generated) == whole


@pytest.mark.parametrize("k", [0, 3, -1])
def test_a_neighbour_that_does_not_exist_is_refused(k):
    with pytest.raises(ValueError, match=f"k is {k}"):
        precision_recall(features(10, 2, 0), features(3, 2, 1), k)


def test_features_of_two_extractors_are_refused():
    with pytest.raises(ValueError, match="2 columns and generated 3"):
        precision_recall(features(10, 2, 0), features(10, 3, 1))


@pytest.mark.skipif(
    importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed"
)
@pytest.mark.parametrize("d", [4, 64])
def test_shares_are_torch_fidelitys(d):
    import torch
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    reference, generated = features(500, d, 0), features(400, d, 1) * 1.2
    expected = calculate_precision_recall_full(
        torch.from_numpy(generated), torch.from_numpy(reference)
    )
    # Its shares are means in float32.
    assert precision_recall(reference, generated) == pytest.approx(expected, abs=1e-6)
