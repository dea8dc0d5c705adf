"""KID with its standard error: what another draw of as many images would make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ddim_core.feature_rows import FeatureRows, check_columns
from ddim_core.jackknife import half_width, jackknife
from ddim_core.kernel import (
    SUBSETS,
    Bools,
    Kernel,
    across_sums,
    draw_subsets,
    indicators,
    kernel_blocks,
    numbers,
    usual_subset_size,
    within_subsets,
)
from ddim_core.moments import Floats


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
    """

    kid: float
    kid_se: float | None
    kid_low: float | None
    kid_high: float | None
    kid_std: float
    kid_subset_size: int


def kernel_score(
    generated: FeatureRows, groups: Sequence[slice], reference: FeatureRows
) -> KernelScore:
    """Scores generated features against a reference by KID, with its interval.

        kid_se^2 = se_jackknife^2 + kid_std^2 / subsets

    Given the images, the subsets are independent draws whose mean is the MMD^2 of all pairs: the
    second term is what a mean of so many of them scatters. The first is the delete-one-group
    jackknife of the MMD^2 of all pairs, over the groups of generated images.

    Memory: two blocks of rows, one block of the kernel matrix, and some 240 bytes an image.

    Args:
        generated: Features [n, d], n >= 2.
        groups: Consecutive slices that cover the rows.
        reference: Features [m, d], m >= 2.
    """
    check_columns(generated, reference)
    n, m, kernel = len(generated), len(reference), Kernel()
    size = usual_subset_size(n, m)
    drawn = draw_subsets(n, m, SUBSETS, size)
    in_x, in_y = indicators(drawn.of_x, n), indicators(drawn.of_y, m)
    in_group = np.zeros((n, len(groups)), dtype=np.bool_)
    for g, group in enumerate(groups):
        in_group[group, g] = True

    subset_within, group_within = _within(generated, in_x, in_group, kernel)
    subset_across, group_across = _across(generated, reference, in_x, in_y, in_group, kernel)
    values = (subset_within + _reference_within(reference, n, size)) / (size * (size - 1))
    values = values - 2.0 * subset_across / size**2
    kid, std = float(values.mean()), float(values.std())
    counts = in_group.sum(axis=0)
    if len(groups) < 2 or n - counts.max() < 2:
        return KernelScore(kid, None, None, None, std, size)
    # Without the reference's own term, which no group of generated images changes.
    whole = group_within.sum() / (n * (n - 1)) - 2.0 * group_across.sum() / (n * m)
    rest = n - counts
    within = group_within.sum() - 2.0 * group_within.sum(axis=1) + group_within.diagonal()
    across = group_across.sum() - group_across
    loo = within / (rest * (rest - 1)) - 2.0 * across / (rest * m)
    found = jackknife(float(whole), loo.tolist(), counts.astype(int).tolist())
    se = float(np.hypot(found.se, std / np.sqrt(SUBSETS)))
    half = half_width(se, len(groups))
    return KernelScore(kid, se, kid - half, kid + half, std, size)


def _within(x: FeatureRows, in_x: Bools, in_group: Bools, kernel: Kernel) -> tuple[Floats, Floats]:
    """Sums over each subset's pairs, and over the pairs of each two groups [G, G]."""
    n_subsets, n_groups = in_x.shape[1], in_group.shape[1]
    subsets, groups = np.zeros(n_subsets), np.zeros((n_groups, n_groups))
    both = np.hstack([in_x, in_group])
    for i, j, values in kernel_blocks(x, kernel):
        sums = values @ numbers(both[j])
        part = np.einsum("is,is->s", numbers(in_x[i]), sums[:, :n_subsets])
        pairs = numbers(in_group[i]).T @ sums[:, n_subsets:]
        subsets += part if i == j else 2.0 * part
        groups += pairs if i == j else pairs + pairs.T
    return subsets, groups


def _across(
    x: FeatureRows, y: FeatureRows, in_x: Bools, in_y: Bools, in_group: Bools, kernel: Kernel
) -> tuple[Floats, Floats]:
    """Sums over each subset's pairs, and over the pairs of each group with all of y [G]."""
    left = np.hstack([in_x, in_group])
    right = np.hstack([in_y, np.ones((len(y), in_group.shape[1]), dtype=np.bool_)])
    sums = across_sums(x, y, left, right, kernel)
    return sums[: in_x.shape[1]], sums[in_x.shape[1] :]


@lru_cache(maxsize=4)  # cells of a grid share theirs
def _reference_within(reference: FeatureRows, n: int, size: int) -> Floats:
    return within_subsets(reference, draw_subsets(n, len(reference), SUBSETS, size).of_y, Kernel())
