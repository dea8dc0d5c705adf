"""Inception score and CMMD against their owners' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddim_core.scores.alone.inception_score import inception_score, inception_score_of_blocks
from ddim_core.scores.distances.cmmd import cmmd, cmmd_interval, unit
from ddim_core.statistics.jackknife import jackknife

RANDOM = np.random.default_rng(0)
ROUNDING = 1e-12  # sums of some hundred numbers of order 1 in float64


@pytest.mark.parametrize(("n", "splits"), [(10, 10), (103, 10), (57, 4), (5, 1)])
def test_the_inception_score_is_torch_fidelitys(n: int, splits: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = RANDOM.normal(size=(n, 17)) * 4
    expected = isc_features_to_metric(torch.from_numpy(logits), splits, True, 2020)
    mean, std = inception_score(logits, splits)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=ROUNDING)
    assert std == pytest.approx(expected["inception_score_std"], rel=1e-9, abs=ROUNDING)


def test_the_inception_score_of_blocks_is_that_of_the_whole() -> None:
    logits = RANDOM.normal(size=(64, 9)) * 3
    blocks = (logits[i : i + 7] for i in range(0, 64, 7))
    whole = inception_score(logits)
    assert inception_score_of_blocks(blocks, 64) == pytest.approx(whole, rel=ROUNDING)


def test_sure_and_even_predictions_score_the_number_of_classes() -> None:
    logits = np.tile(1e4 * np.eye(10), (10, 1))  # probabilities underflow to exactly 0 and 1
    assert inception_score(logits, splits=1) == pytest.approx((10.0, 0.0), rel=ROUNDING)
    assert inception_score(np.zeros((20, 10))) == pytest.approx((1.0, 0.0), rel=ROUNDING)


def test_too_few_images_for_an_inception_score_are_refused() -> None:
    with pytest.raises(ValueError, match=r"splits is 10; with 9 images it must lie in 1\.\.9"):
        inception_score(np.zeros((9, 3)))


def by_definition(x: np.ndarray, y: np.ndarray) -> float:
    """CMMD as its paper has it, pair by pair: sigma 10, scale 1000, the diagonal taken in."""

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        squared = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
        return float(np.exp(-squared / (2 * 10**2)).mean())

    return 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


def test_cmmd_is_its_definition() -> None:
    x, y = unit(RANDOM.normal(size=(1100, 6))), unit(RANDOM.normal(size=(40, 6)) + 0.5)
    # Kernel values are 1 - 0.01, of which a thousandth of a thousandth is left.
    assert cmmd(x, y) == pytest.approx(by_definition(x, y), abs=1000 * 1e-14)
    assert cmmd(x, y) > 0.1
    assert cmmd(y, y) == pytest.approx(0.0, abs=1000 * 1e-14)


def test_the_interval_of_cmmd_is_the_jackknife_of_its_definition() -> None:
    groups = [unit(RANDOM.normal(size=(size, 5)) + 1) for size in (7, 5, 6, 9)]
    y = unit(RANDOM.normal(size=(30, 5)))
    loo = [
        by_definition(np.concatenate([g for j, g in enumerate(groups) if j != i]), y)
        for i in range(4)
    ]
    expected = jackknife(by_definition(np.concatenate(groups), y), loo, [7, 5, 6, 9])
    found = cmmd_interval(groups, y)
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.high == pytest.approx(expected.high, rel=1e-9)
    assert found.low == pytest.approx(max(expected.low, 0.0), rel=1e-9)


def test_an_embedding_without_direction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features\[1\] is 0"):
        unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert np.allclose(unit(np.array([[3.0, 4.0]])), [[0.6, 0.8]])
