"""KID with its standard error: what another draw of as many images would make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ddim_core.devices.float64 import ON_CPU, Float64
from ddim_core.scores.distances.kernel import (
    SUBSETS,
    Kernel,
    draw_subsets,
    indicators,
    numbers,
    subset_sums,
    usual_subset_size,
    within_subsets,
)
from ddim_core.statistics.jackknife import half_width, jackknife
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.pairs import Pairs, look_at_pairs
from ddim_core.statistics.rows import FeatureRows, check_columns
from ddim_core.statistics.tails import carried_by, tail_index


@dataclass(frozen=True)
class KernelScore:
    """A kernel distance and two spreads that are not to be confused.

    Attributes:
        kid: Mean of the unbiased MMD^2 over `subsets` random subsets (torch-fidelity's number).
        kid_se: Its standard error over other draws of as many generated images, the reference
            as given; see `kernel_score`. None with fewer than 2 groups.
        kid_low, kid_high: Its 95 % interval, Student t at G - 1 degrees of freedom.
        kid_std: Standard deviation between the subsets: of one subset of this size, not of `kid`.
        kid_subset_size: Images of each set in a subset.
        carried_by: How many of the n images carry the spread, see `tails.carried_by`.
        tail_index: How slowly the largest of their pulls fall off, see `tails.tail_index`.
        directions: How many directions of the kernel's space the generated images spread over,
            (tr K)^2 / tr K^2 of its centred matrix.
        curved: Share of the variance of MMD^2 that is of second order in the images, and unseen
            by a jackknife: near 0 far from the reference, near 1 at it.
    """

    kid: float
    kid_se: float | None
    kid_low: float | None
    kid_high: float | None
    kid_std: float
    kid_subset_size: int
    carried_by: float
    tail_index: float | None
    directions: float
    curved: float


def kernel_score(
    generated: FeatureRows,
    groups: Sequence[slice | NDArray[np.intp]],
    reference: FeatureRows,
) -> KernelScore:
    """Scores generated features against a reference by KID, with its interval.

        kid_se^2 = se_jackknife^2 + kid_std^2 / subsets

    Given the images, the subsets are independent draws whose mean is the MMD^2 of all pairs: the
    second term is what a mean of so many of them scatters. The first is the delete-one-group
    jackknife of the MMD^2 of all pairs, over the groups of generated images.

    Memory: two blocks of rows, one of the kernel matrix, and some 240 bytes an image.

    Args:
        generated: Features [n, d], n >= 2.
        groups: Consecutive slices that cover the rows, or the rows of each.
        reference: Features [m, d], m >= 2.
    """
    check_columns(generated, reference)
    sums = KernelSums(generated, groups, reference)
    look_at_pairs(generated, reference, None, [sums])
    return sums.score()


class KernelSums:
    """`kernel_score` as something that looks at pairs, see `pairs.look_at_pairs`; what is summed
    over the reference alone is computed by `on`."""

    def __init__(
        self,
        generated: FeatureRows,
        groups: Sequence[slice | NDArray[np.intp]],
        reference: FeatureRows,
        on: Float64 = ON_CPU,
    ) -> None:
        self._reference, self._kernel, self._on = reference, Kernel(), on
        n, m = len(generated), len(reference)
        self._size = usual_subset_size(n, m)
        drawn = draw_subsets(n, m, SUBSETS, self._size)
        self._in_y = indicators(drawn.of_y, m)
        in_group = np.zeros((n, len(groups)), dtype=np.bool_)
        for g, group in enumerate(groups):
            in_group[group, g] = True
        self._in_either = np.hstack([indicators(drawn.of_x, n), in_group])
        self._in_x = self._in_either[:, :SUBSETS]
        self._counts = in_group.sum(axis=0)
        # Over the pairs of each subset, of each two groups, and of each group with the reference.
        self._within, self._across = np.zeros(SUBSETS), np.zeros(SUBSETS)
        self._groups_within = np.zeros((len(groups), len(groups)))
        self._groups_across = np.zeros(len(groups))
        # Of each generated row: with all others, and with the reference.
        self._row_within, self._row_across = np.zeros(n), np.zeros(n)
        self._squares, self._own = 0.0, 0.0  # over pairs within: of others squared, of a row itself

    def within(self, pairs: Pairs) -> None:
        """Takes pairs of generated rows."""
        values, on = self._kernel(pairs), pairs.on
        if pairs.i == pairs.j:
            self._own += float(values.trace())
            on.fill_diagonal(values, 0.0)
        sums = values @ on.put(numbers(self._in_either[pairs.j]))
        part = subset_sums(self._in_x[pairs.i], sums[:, :SUBSETS], on)
        groups = self._groups(pairs).T @ on.got(sums[:, SUBSETS:])
        once = pairs.i == pairs.j
        self._within += part if once else 2.0 * part
        self._groups_within += groups if once else groups + groups.T
        self._squares += on.dot(values, values) * (1.0 if once else 2.0)
        self._row_within[pairs.i] += on.got(values.sum(axis=1))
        if not once:
            self._row_within[pairs.j] += on.got(values.sum(axis=0))

    def across(self, pairs: Pairs) -> None:
        """Takes pairs of generated and reference rows."""
        values, on = self._kernel(pairs), pairs.on
        sums = values @ on.put(numbers(self._in_y[pairs.j]))
        self._across += subset_sums(self._in_x[pairs.i], sums, on)
        row = on.got(values.sum(axis=1))
        self._row_across[pairs.i] += row
        self._groups_across += row @ self._groups(pairs)

    def _groups(self, pairs: Pairs) -> Floats:
        return numbers(self._in_either[pairs.i, SUBSETS:])

    def score(self) -> KernelScore:
        """The score, when all pairs have been seen."""
        size, n, m = self._size, len(self._in_x), len(self._in_y)
        of_reference = _reference_within(self._reference, n, size, self._on)
        values = (self._within + of_reference) / (size * (size - 1))
        values = values - 2.0 * self._across / size**2
        kid, std = float(values.mean()), float(values.std())
        if not np.isfinite([kid, std, self._squares]).all():
            raise ValueError(
                "the cube of the features' products overflows float64; features are too large for "
                "KID, and are to be of the order of 1"
            )
        counts = self._counts
        # The derivative of MMD^2 in the weight of a row, up to a factor and what all share.
        means = self._row_within / (n - 1)
        influence = means - self._row_across / m
        # Of the centred matrix; with n in the thousands its own diagonal plays no part in tr K^2.
        squares = max(self._squares - (2.0 * means - means.mean()) @ means * n, 0.0)
        trace = self._own - n * means.mean()
        second = 2.0 * squares / n**4
        told = KernelScore(
            kid, None, None, None, std, size,
            carried_by=carried_by(influence),
            tail_index=tail_index(influence),
            directions=trace**2 / squares if squares else float(n),
            curved=second / (second + 4.0 * float(influence.var()) / n) if second else 0.0,
        )  # fmt: skip
        if len(counts) < 2 or n - counts.max() < 2:
            return told
        # Without the reference's own term, which no group of generated images changes.
        group_within, group_across = self._groups_within, self._groups_across
        whole = group_within.sum() / (n * (n - 1)) - 2.0 * group_across.sum() / (n * m)
        rest = n - counts
        within = group_within.sum() - 2.0 * group_within.sum(axis=1) + group_within.diagonal()
        across = group_across.sum() - group_across
        loo = within / (rest * (rest - 1)) - 2.0 * across / (rest * m)
        found = jackknife(float(whole), loo.tolist(), counts.astype(int).tolist())
        se = float(np.hypot(found.se, std / np.sqrt(SUBSETS)))
        half = half_width(se, len(counts))
        return replace(told, kid_se=se, kid_low=kid - half, kid_high=kid + half)


@lru_cache(maxsize=4)  # cells of a grid share theirs
def _reference_within(reference: FeatureRows, n: int, size: int, on: Float64) -> Floats:
    chosen = draw_subsets(n, len(reference), SUBSETS, size).of_y
    return within_subsets(reference, chosen, Kernel(), on)
