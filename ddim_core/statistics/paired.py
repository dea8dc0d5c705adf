"""Differences between cells that share their noise: intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ddim_core.statistics.jackknife import LEVEL, Jackknife, half_width, jackknife


@dataclass(frozen=True)
class PairedDifference:
    """value = theta_a - theta_b with its 95 % interval and the two-sided p-value."""

    value: float
    se: float
    low: float
    high: float
    p_value: float

    def interval(self, n_tests: int, groups: int) -> tuple[float, float]:
        """Returns the interval that holds with 95 % together with those of n_tests - 1 others
        (Bonferroni), for a jackknife over G groups."""
        from scipy.special import stdtrit

        half = float(stdtrit(groups - 1, 1.0 - (1.0 - LEVEL) / (2.0 * n_tests))) * self.se
        return self.value - half, self.value + half


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
    loo = _loo_difference(loo_a, loo_b)
    found = jackknife(uncorrected(value_a - value_b, loo, sizes), loo, sizes)
    return _tested(found, value_a - value_b)


def uncorrected(value: float, leave_one_out: Sequence[float], sizes: Sequence[int]) -> float:
    """Returns the estimate that a jackknife freed of its bias: Busing et al.'s correction, solved
    for what it was made from.

    Args:
        value: The corrected estimate.
        leave_one_out: [G] the estimates before the correction, without each group.
        sizes: Members per group.

    Raises:
        ValueError: If the lengths differ.
    """
    loo = np.asarray(leave_one_out)
    if loo.size != len(sizes):
        raise ValueError(f"sizes is {list(sizes)}; it must hold {loo.size} numbers")
    share = np.asarray(sizes) / np.sum(sizes)
    return (value + float(((1.0 - share) * loo).sum())) / max(loo.size, 1)


def beyond(found: PairedDifference, margin: float, groups: int) -> float:
    """Returns the two-sided p-value of a difference no larger than a margin, either way.

    Args:
        found: The difference, of G groups.
        margin: What does not count; 0 gives the difference's own p-value.
        groups: G.
    """
    if margin and abs(found.value) <= margin:
        return 1.0
    return _p_value(abs(found.value) - margin, found.se, groups)


def _loo_difference(loo_a: Sequence[float], loo_b: Sequence[float]) -> list[float]:
    if len(loo_a) != len(loo_b):
        raise ValueError(f"the cells have {len(loo_a)} and {len(loo_b)} groups; pairs need equal")
    return [a - b for a, b in zip(loo_a, loo_b, strict=True)]


def _tested(found: Jackknife, value: float) -> PairedDifference:
    half = half_width(found.se, found.groups)
    p_value = _p_value(value, found.se, found.groups)
    return PairedDifference(value, found.se, value - half, value + half, p_value)


def _p_value(value: float, se: float, groups: int) -> float:
    from scipy.special import stdtr

    if se == 0.0:
        return 1.0 if value == 0.0 else 0.0
    return float(2.0 * stdtr(groups - 1, -abs(value) / se))
