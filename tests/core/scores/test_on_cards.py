"""Scores by torch in float64, as on a card, beside NumPy's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddim_core.devices.float64 import float64_on
from ddim_core.scores.cell_score import ScoreReference, score_features
from ddim_core.scores.distances.cmmd import cmmd_interval, unit
from ddim_core.scores.set_score import FeatureSet, frechet_of_pair
from ddim_core.statistics import pairs
from ddim_core.statistics.npz import statistics_of

# Of each number: sums of float64 in another order. What is a count of images is the same.
BOUND = 1e-9
CARD = float64_on("cpu:0")


@pytest.fixture(autouse=True)
def _as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy takes a CPU's tensor for an array of its own, where it would refuse a card's."""

    def refuse(self: torch.Tensor, *_: Any) -> None:
        raise TypeError("a tensor of a card is no array; ask for it with `got`")

    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    monkeypatch.setattr(pairs, "CARD_TILE", 250)


def features(n: int, d: int, seed: int, shift: float = 0.0) -> NDArray[np.float32]:
    scales = np.arange(1, d + 1) ** -0.5
    drawn = np.random.default_rng(seed).standard_normal((n, d)) * scales + shift
    drawn = drawn.astype(np.float32)
    drawn.setflags(write=False)  # as they come from the store
    return drawn


def copied(n: int, d: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Generated and real features, among the first some twice, and some that are real ones."""
    made, real = features(n, d, 1, 0.05).copy(), features(n - 100, d, 2)
    made[50:70], made[90:95] = made[:20], real[:5]
    return made, real


def nearly(wanted: Any) -> Any:
    return pytest.approx(wanted, rel=BOUND) if isinstance(wanted, (float, list)) else wanted


@pytest.mark.parametrize(
    ("made", "real", "shards"),
    [
        (*copied(700, 24), 7),
        (features(300, 520, 1, 0.02), features(280, 520, 2), 3),  # fewer images than features
        (features(4, 3, 1), features(3, 3, 2), 1),
    ],
)
def test_a_card_gives_the_scores_of_a_cpu(
    made: NDArray[np.float32], real: NDArray[np.float32], shards: int
) -> None:
    cut = np.array_split(made, shards)
    wanted = score_features(cut, ScoreReference.of(real))
    found = score_features(cut, ScoreReference.of(real, on=CARD))
    for name, value in asdict(wanted).items():
        assert getattr(found, name) == nearly(value), name
    exact = ("precision", "recall", "density", "coverage", "near_duplicates", "memorised")
    assert [getattr(found, name) for name in exact] == [getattr(wanted, name) for name in exact]


def test_against_statistics_and_by_cmmd_too() -> None:
    made, real = copied(400, 40)
    known = FeatureSet("real", given=statistics_of(real, None))
    sides = FeatureSet("cell", [made[:150], made[150:]]), known
    wanted, found = frechet_of_pair(*sides).score, frechet_of_pair(*sides, CARD).score
    assert found.carried_by == nearly(wanted.carried_by)
    assert (found.fid, found.fid_inf_low) == (nearly(wanted.fid), nearly(wanted.fid_inf_low))
    groups, against = np.array_split(unit(made), 9), unit(real)
    for one, other in zip(cmmd_interval(groups, against, CARD), cmmd_interval(groups, against),
                          strict=True):  # fmt: skip
        assert one == pytest.approx(other, rel=BOUND)
