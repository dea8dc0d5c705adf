"""Which rows of the table differ: paired tests between them, corrected for their number.

Rows of one protocol and seed share x_T image by image, so two of them are compared by the jackknife
of their difference: what the shared noise moves in both cancels. Tests that answer one question
are corrected together, and their intervals with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow, is_ours, sampler_of
from ddim_core.features.protocol import differing_fields, require_comparable
from ddim_core.samplers.catalogue import SAMPLERS
from ddim_core.statistics.paired import PairedDifference

LEVEL = 0.05
Pair = tuple[CellRow, CellRow]
# What two rows must share for their images to be pairs: what is scored against what, by what, and
# which noise lies in which group.
PAIRED = (
    "extractor_digest", "reference_digest", "resolution", "n_images", "shard_size", "seed",
    "group_sizes",
)  # fmt: skip
WEIGHTS = "image_scores"  # whose entry of a measure says by which weights it was taken
PROMPTS = "prompts_digest"


@dataclass(frozen=True)
class Comparison:
    """The value of row a minus that of row b, and whether that can be told from 0.

    Attributes:
        a, b: The rows' cell digests.
        value, low, high: The difference with its interval, which holds with 95 % for all
            comparisons that were made with it.
        se: Its standard error.
        p_value: Two-sided, of this pair alone.
        p_adjusted: Corrected for all of them, as the interval is (Bonferroni): it is below 0.05 if
            and only if the interval leaves 0 out. Of `bought` by Holm, which may tell a difference
            whose interval does not yet leave 0 out.
        measure: What was compared.
    """

    a: str
    b: str
    value: float
    se: float
    low: float
    high: float
    p_value: float
    p_adjusted: float
    measure: Measure = FID

    @property
    def verdict(self) -> Literal["better", "worse", "tied"]:
        """Of a against b, at level 0.05 after the correction."""
        if self.p_adjusted >= LEVEL:
            return "tied"
        return "better" if (self.value < 0.0) == self.measure.lower_is_better else "worse"


def compare(pairs: Iterable[Pair], measure: Measure = FID) -> list[Comparison]:
    """Compares pairs of rows that answer one question: all of them are corrected together.

    The chance that any pair that is equal in truth is called different is at most 5 %, whichever
    of the others differ.

    Args:
        pairs: Rows of the table.
        measure: What decides.

    Raises:
        ValueError: If two rows cannot be compared (names the fields), or have no interval.
    """
    rows = list(pairs)
    found = [difference(a, b, measure) for a, b in rows]
    n = len(found)
    return [
        Comparison(
            a.cell_digest, b.cell_digest, test.value, test.se,
            *test.interval(n, len(measure.group_sizes(a))), test.p_value,
            min(1.0, n * test.p_value), measure,
        )
        for (a, b), test in zip(rows, found, strict=True)
    ]  # fmt: skip


def difference(a: CellRow, b: CellRow, measure: Measure = FID) -> PairedDifference:
    """The value of a minus the value of b, by their shared groups.

    Raises:
        ValueError: If the rows cannot be compared (names the fields), or have no interval or value.
    """
    require_paired(a, b, measure)
    return measure.difference(a, b)


def unpaired_fields(a: CellRow, b: CellRow, measure: Measure = FID) -> list[str]:
    """Names the fields in which two rows differ although a paired test needs them equal."""
    unequal = [name for name in PAIRED if getattr(a, name) != getattr(b, name)]
    unequal += [WEIGHTS] if measure.weights(a) != measure.weights(b) else []
    unequal += [PROMPTS] if measure.weighed and a.prompts_digest != b.prompts_digest else []
    return list(dict.fromkeys([*unequal, *differing_fields(a, b)]))


def require_paired(a: CellRow, b: CellRow, measure: Measure = FID) -> None:
    """Refuses two rows whose images are no pairs, or whose scores are by other weights.

    Raises:
        ValueError: Names every field in which they differ, with both values.
    """
    different = unpaired_fields(a, b, measure)
    if set(different) - {*PAIRED, WEIGHTS, PROMPTS}:
        require_comparable(a, b)  # it knows what the protocol's record says of both
    if different:
        said = "; ".join(f"{name} is {_short(a, name)} and {_short(b, name)}" for name in different)
        raise ValueError(f"rows of different protocol or noise cannot be compared: {said}")


@dataclass(frozen=True)
class Pairing:
    """What shared noise buys: standard errors of differences over those of independent seeds.

    A ratio r needs r^2 of the images for the same interval; 1 buys nothing.

    Attributes:
        n_pairs: Of cells.
        median: Of all pairs' ratios.
        kinds: For each kind of pair its name, how many there are, and the median of their ratios;
            the least noise first.
    """

    n_pairs: int
    median: float
    kinds: tuple[tuple[str, int, float], ...]


def pairing(rows: Sequence[CellRow], measure: Measure = FID) -> Pairing | None:
    """Says what pairing buys in a grid; None of one cell, or where nothing scatters.

    Args:
        rows: Of one protocol and noise, with intervals.
        measure: What is compared.

    Raises:
        ValueError: If rows cannot be compared (names the fields), or have no interval or value.
    """
    for row in rows[1:]:
        require_paired(rows[0], row, measure)
    found = measure.together(rows)
    by_kind: dict[tuple[float, str], list[float]] = {}
    for i, j in combinations(range(len(rows)), 2):
        if found.unpaired[i, j] > 0.0:
            kind = max(_noise(rows[i]), _noise(rows[j]))
            by_kind.setdefault(kind, []).append(found.paired[i, j] / found.unpaired[i, j])
    if not by_kind:
        return None
    ratios = [ratio for of_kind in by_kind.values() for ratio in of_kind]
    kinds = tuple((k[1], len(by_kind[k]), float(np.median(by_kind[k]))) for k in sorted(by_kind))
    return Pairing(len(ratios), float(np.median(ratios)), kinds)


def _noise(row: CellRow) -> tuple[float, str]:
    """How much noise a cell draws on the way, and what its pairs with cells of less are called."""
    if is_ours(row) and row.variance == "sigma_hat":
        return 2.0, "one or both with sigma-hat"
    if row.eta:
        return row.eta, f"one or both with eta = {row.eta:g}"
    sampler = SAMPLERS.get(re.split("[/?]", sampler_of(row))[0])
    if not is_ours(row) and (sampler is None or sampler.noisy or "S_churn" in sampler_of(row)):
        return 3.0, "one or both of another sampler that draws noise, or may"
    return 0.0, "both without noise"


def comparable_sets(rows: Sequence[CellRow], measure: Measure = FID) -> list[list[CellRow]]:
    """Parts rows into sets within which all may be compared, in order of their first row."""
    sets: list[list[CellRow]] = []
    for row in rows:
        home = next((s for s in sets if not unpaired_fields(s[0], row, measure)), None)
        if home is None:
            sets.append([row])
        else:
            home.append(row)
    return sets


def _short(row: CellRow, name: str) -> str:
    value = getattr(row, name)
    if name == "group_sizes" and value is not None:
        return f"{len(value)} groups of {min(value)} to {max(value)} images" if value else "none"
    return repr(value[:12] if name.endswith("_digest") and value else value)
