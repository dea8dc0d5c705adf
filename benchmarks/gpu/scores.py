"""A score of many images on a card: its seconds, and how far its numbers are from a CPU's."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.record import Figure, Record
from benchmarks.gpu.timing import seconds
from ddim_core.devices.float64 import ON_CPU, Float64, float64_on
from ddim_core.scores.cell_score import CellScore, ScoreReference, score_features

Features = NDArray[np.float32]
SHARDS, GROUPS_LEFT_OUT = 5, 15


def measure(record: Record, tiny: bool, device: str) -> None:
    """All scores of 10,000 images against as many real ones, of 2,048 features."""
    n, few, d = (200, 100, 24) if tiny else (10_000, 2_500, 2048)
    card = float64_on(device if device != "cpu" else "cpu:0")
    made, real = features(n, d, 1, 0.02), features(n, d, 2)
    _scored(card, made[:few], real[:few])  # libraries choose their ways
    against: list[ScoreReference] = []
    of_real = seconds(lambda: against.append(ScoreReference.of(real, on=card)))
    whole = seconds(lambda: score_features(np.array_split(made, SHARDS), against[0]))
    covariance = card.put(np.cov(real[: 2 * d].T.astype(np.float64)))
    several = covariance.repeat(GROUPS_LEFT_OUT, 1, 1)
    for apart in (torch.linalg.eigvalsh, torch.linalg.svdvals):
        apart(covariance)  # which chooses its way
    told = f"{n} images and as many real ones, {d} features, float64"
    record.add(
        Figure("a whole score on the card", whole, "s", told=told),
        Figure("what is taken of the reference once", of_real, "s", told=told),
        *(
            Figure(f"{what}, {where}", seconds(work), "s", told=f"{d} x {d}, float64")
            for what, where, work in (
                (f"eigenvalues of {GROUPS_LEFT_OUT} matrices", "the host's cores, as it is done",
                 lambda: card.eigenvalues(several)),
                (f"eigenvalues of {GROUPS_LEFT_OUT} matrices", "the card",
                 lambda: [torch.linalg.eigvalsh(one) for one in several]),
                ("singular values of a matrix", "the host's cores, as it is done",
                 lambda: card.singular_values(covariance)),
                ("singular values of a matrix", "the card",
                 lambda: torch.linalg.svdvals(covariance)),
            )
        ),
        Figure("largest difference between scores of the card and of a CPU",
               _apart(_scored(card, made[:few], real[:few]),
                      _scored(ON_CPU, made[:few], real[:few])),
               "of a number", "<= 1e-9", told=f"{few} images and as many real ones, {d} features"),
    )  # fmt: skip


def features(n: int, d: int, seed: int, shift: float = 0.0) -> Features:
    """Features like Inception's: not below 0, few directions with much of the variance."""
    mix = np.random.default_rng(0).standard_normal((d, d)) * np.arange(1, d + 1) ** -0.5
    drawn = np.random.default_rng(seed).standard_normal((n, d)) @ mix / np.sqrt(d)
    return np.maximum(drawn + 0.3 + shift, 0.0).astype(np.float32)


def _scored(on: Float64, made: Features, real: Features) -> CellScore:
    return score_features(np.array_split(made, SHARDS), ScoreReference.of(real, on=on))


def _apart(one: CellScore, other: CellScore) -> float:
    """The largest difference of two scores' numbers, as a share of them, or of 1e-6 if they are
    smaller."""
    pairs = zip(asdict(one).values(), asdict(other).values(), strict=True)
    values = [np.array(pair, dtype=np.float64) for pair in pairs if pair[0] is not None]
    return max(float((np.abs(a - b) / np.maximum(np.abs(b), 1e-6)).max()) for a, b in values)
