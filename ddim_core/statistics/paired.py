"""Differences between cells that share their noise: intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddim_core.statistics.jackknife import Jackknife, half_width, jackknife


@dataclass(frozen=True)
class PairedDifference:
    """value = theta_a - theta_b with its 95 % interval and the two-sided p-value."""

    value: float
    se: float
    low: float
    high: float
    p_value: float


def paired_difference(
    loo_a: Sequence[float],
    loo_b: Sequence[float],
    theta_a: float,
    theta_b: float,
    sizes: Sequence[int] | None = None,
) -> PairedDifference:
    """Tests theta_a = theta_b for two cells whose shards share their noise, group by group.

    The jackknife of the difference: what the shared noise moves in both cells cancels. It is
    centred on theta_a - theta_b, whose biases cancel as far as the two cells are alike.

    Args:
        loo_a, loo_b: [G] estimates without each group, groups in one order.
        theta_a, theta_b: Estimates from all groups.
        sizes: Members per group; equal when None.

    Raises:
        ValueError: If the lengths differ, or as `jackknife`.
    """
    found = jackknife(theta_a - theta_b, _loo_difference(loo_a, loo_b), sizes)
    return _tested(found, found.value)


def paired_difference_inf(
    loo_a: Sequence[float],
    loo_b: Sequence[float],
    value_a: float,
    value_b: float,
    sizes: Sequence[int],
) -> PairedDifference:
    """The same for estimates that the jackknife has freed of their bias, such as fid_inf.

    Args:
        loo_a, loo_b: [G] the estimates before that correction, without each group.
        value_a, value_b: The corrected estimates; the difference is centred on theirs.
        sizes: Members per group.

    Raises:
        ValueError: As `paired_difference`.
    """
    loo = np.asarray(_loo_difference(loo_a, loo_b))
    if loo.size != len(sizes):
        raise ValueError(f"sizes is {list(sizes)}; it must hold {loo.size} numbers")
    # Busing et al.'s correction, solved for the estimate it was made from.
    share = np.asarray(sizes) / np.sum(sizes)
    theta = (value_a - value_b + float(((1.0 - share) * loo).sum())) / max(loo.size, 1)
    found = jackknife(theta, loo.tolist(), sizes)
    return _tested(found, value_a - value_b)


def _loo_difference(loo_a: Sequence[float], loo_b: Sequence[float]) -> list[float]:
    if len(loo_a) != len(loo_b):
        raise ValueError(f"the cells have {len(loo_a)} and {len(loo_b)} groups; pairs need equal")
    return [a - b for a, b in zip(loo_a, loo_b, strict=True)]


def _tested(found: Jackknife, value: float) -> PairedDifference:
    from scipy.special import stdtr

    if found.se == 0.0:
        p_value = 1.0 if value == 0.0 else 0.0
    else:
        p_value = float(2.0 * stdtr(found.groups - 1, -abs(value) / found.se))
    half = half_width(found.se, found.groups)
    return PairedDifference(value, found.se, value - half, value + half, p_value)
