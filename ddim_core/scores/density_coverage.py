"""Density and coverage of generated features in the neighbourhoods of the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, starmap

import numpy as np

from ddim_core.scores.precision_recall import Manifold
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.pairs import Pairs

NEIGHBOURS = 5


@dataclass(frozen=True)
class DensityCoverage:
    """Both with their 95 % intervals; None where they cannot be told.

    Attributes:
        density: Real neighbourhoods that hold a generated image, on average over images and over
            k: about 1 for the real distribution, without an upper bound.
        coverage: Share of real images that have a generated one in their neighbourhood.
        density_low, density_high, coverage_low, coverage_high: Over other draws of as many
            generated images, the reference as given; of coverage None where no group of images
            alone covers a real one.
    """

    density: float | None = None
    density_low: float | None = None
    density_high: float | None = None
    coverage: float | None = None
    coverage_low: float | None = None
    coverage_high: float | None = None


class Neighbourhoods:
    """Density and coverage as something that looks at pairs, see `pairs.look_at_pairs`.

        density = 1/(k n) sum_j sum_i 1[|x_j - y_i| < r_k(y_i)]
        coverage = 1/m sum_i 1[some j has |x_j - y_i| < r_k(y_i)]

    with y_i the m real, x_j the n generated features and r_k the distance of a real one to its
    k-th nearest real neighbour.

    Source: Naeem et al. 2020 (arXiv:2002.09797), eqs. 3 and 4; its k is 5, as in `prdc`.

    The intervals are of the jackknife over groups of generated images. Memory: one byte a real
    image and group.

    Args:
        manifold: The reference's side.
        groups: Consecutive slices that cover the generated rows.
        k: Neighbours, at most as many as the manifold knows.
    """

    def __init__(self, manifold: Manifold, groups: Sequence[slice], k: int = NEIGHBOURS) -> None:
        self._radii, self._k = manifold.radii(k), k
        self._starts = np.array([group.start for group in groups])
        self._sizes = np.array([group.stop - group.start for group in groups])
        self._hits = np.zeros(groups[-1].stop)
        self._covered = np.zeros((len(self._radii), len(groups)), dtype=np.bool_)

    def within(self, pairs: Pairs) -> None:
        """Pairs of generated rows play no part."""

    def across(self, pairs: Pairs) -> None:
        """Takes pairs of generated and reference rows."""
        on = pairs.on
        inside = pairs.squared_distances() < on.put(self._radii[pairs.j])
        self._hits[pairs.i] += on.got(inside.sum(axis=1))
        first = int(np.searchsorted(self._starts, pairs.i.start, side="right")) - 1
        last = int(np.searchsorted(self._starts, pairs.i.stop - 1, side="right"))
        cuts = [0, *(self._starts[first + 1 : last] - pairs.i.start), len(inside)]
        for group, rows in enumerate(starmap(slice, pairwise(cuts)), start=first):
            self._covered[pairs.j, group] |= on.got(inside[rows].any(axis=0))

    def score(self) -> DensityCoverage:
        """Both, when all pairs have been seen."""
        sizes, n = self._sizes, len(self._hits)
        hits = np.add.reduceat(self._hits, self._starts) / self._k
        by = self._covered.sum(axis=1)
        density, coverage = float(hits.sum() / n), float((by > 0).mean())
        if len(sizes) < 2:
            return DensityCoverage(density=density, coverage=coverage)
        rest = (hits.sum() - hits) / (n - sizes)
        left = (by[:, None] - self._covered > 0).mean(axis=0)
        dense = jackknife(density, rest.tolist(), sizes.tolist())
        covering = jackknife(coverage, left.tolist(), sizes.tolist())
        found = DensityCoverage(density, max(dense.low, 0.0), dense.high, coverage)
        if covering.se == 0.0:  # no group alone covers anything: the data do not tell its spread
            return found
        ends = max(covering.low, 0.0), min(covering.high, 1.0)
        return replace(found, coverage_low=ends[0], coverage_high=ends[1])
