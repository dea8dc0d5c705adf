"""What a run of the paper's experiments shows of the paper's claims, in computed sentences, beside
the paper's own numbers: CIFAR10, 32x32, the network of Ho et al. 2020, T = 1000.

A claim is said to hold, or not to, only beyond its paired interval (level 0.05, p-values of one
question corrected by Holm's procedure); else the numbers leave it open.

Source: Song et al. 2021 (arXiv:2010.02502), tables 1 and 2. FID there is of 50,000 images by
Inception features, so it compares with no score of another model, data set, count or extractor;
only its course over S and eta does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ddim_core.decisions.compare import LEVEL, difference
from ddim_core.decisions.row import CellRow, Setting, line_name
from ddim_core.reports.grid_sentences import lines, mixed_clipping
from ddim_core.statistics.holm import holm

SOURCE = "Song et al. 2021 (arXiv:2010.02502)"
TABLE_1_SETTING = "CIFAR10 32x32, Inception features, N = 50000"
TABLE_2_SETTING = "CIFAR10 32x32"

STEPS = (10, 20, 50, 100, 1000)
_FID: dict[float | None, tuple[float, ...]] = {  # by eta; None is sigma-hat
    0.0: (13.36, 6.84, 4.67, 4.16, 4.04),
    0.2: (14.04, 7.11, 4.77, 4.25, 4.09),
    0.5: (16.66, 8.35, 5.25, 4.46, 4.29),
    1.0: (41.07, 18.36, 8.01, 5.78, 4.73),
    None: (367.43, 133.37, 32.72, 9.99, 3.17),
}

RECONSTRUCTION: dict[int, float] = {
    10: 0.014, 20: 0.0065, 50: 0.0023, 100: 0.0009, 200: 0.0004, 500: 0.0001, 1000: 0.0001,
}  # fmt: skip
"""Table 2: per-dimension squared error after encoding and decoding with S steps, by S."""

Errors = Mapping[int, NDArray[np.float64]]


@dataclass(frozen=True)
class PaperCell:
    """A cell of the paper's, named as in our table. Of sigma-hat, clip is what the official code
    does (its `ddpm_noisy`); the paper does not say."""

    steps: int
    eta: float
    variance: str
    clip: bool
    fid: float
    fid_low: None = None
    fid_high: None = None


def table_1() -> list[PaperCell]:
    """Returns table 1."""
    return [
        PaperCell(
            steps=steps,
            eta=1.0 if eta is None else eta,
            variance="sigma_hat" if eta is None else "eta",
            clip=eta is None,
            fid=fid,
        )
        for eta, line in _FID.items()
        for steps, fid in zip(STEPS, line, strict=True)
    ]


def fid_of(row: Setting) -> float | None:
    """Returns the paper's FID at a row's S and line, or None where table 1 has none."""
    eta = None if row.variance == "sigma_hat" else row.eta
    if row.steps not in STEPS or eta not in _FID:
        return None
    return _FID[eta][STEPS.index(row.steps)]


def read_paper(rows: Sequence[CellRow], errors: Errors) -> list[str]:
    """Says for each claim of the paper whether these numbers bear it out.

    Args:
        rows: Rows of one grid, as in the table.
        errors: Reconstruction errors [n] by S, of the same images in the same order.
    """
    if any(len(row.fid_leave_one_out) < 2 for row in rows):
        said = ["There are too few images for intervals of FID, so no difference is claimed."]
    else:
        said = [*_fid_falls(rows), *_eta_zero_first(rows), *_sigma_hat_last(rows)]
    return [*said, *_errors_fall(errors), *mixed_clipping(rows)]


def _fid_falls(rows: Sequence[CellRow]) -> list[str]:
    """Compares the fewest with the most steps on every line that has both."""
    first, last = (pick(row.steps for row in rows) for pick in (min, max))
    ends = {
        name: (line[0], line[-1])
        for name, line in lines(rows).items()
        if first < last and (line[0].steps, line[-1].steps) == (first, last)
    }
    if not ends:
        return []
    tests = {name: difference(most, fewest) for name, (fewest, most) in ends.items()}
    verdicts = _verdicts({name: (t.value, t.p_value) for name, t in tests.items()})
    return [f"From S = {first} to S = {last}, FID {_in_words(verdicts, 'falls', 'rises')}."]


def _eta_zero_first(rows: Sequence[CellRow]) -> list[str]:
    steps, zero, others = _one_and_others(rows, lambda row: row.eta == 0.0)
    if zero is None or not others:
        return []
    tests = {name: difference(zero, row) for name, row in others.items()}
    verdicts = _verdicts({name: (t.value, t.p_value) for name, t in tests.items()})
    words = _in_words(verdicts, "is lower than", "is higher than", "cannot be told from that")
    best = " It is the best line there, as in the paper." if set(verdicts.values()) == {-1} else ""
    return [f"At S = {steps}, the FID of {line_name(zero)} {words}.{best}"]


def _sigma_hat_last(rows: Sequence[CellRow]) -> list[str]:
    steps, worst, others = _one_and_others(rows, lambda row: row.variance == "sigma_hat")
    if worst is None or not others:
        return []
    tests = {name: difference(worst, row) for name, row in others.items()}
    verdicts = _verdicts({name: (t.value, t.p_value) for name, t in tests.items()})
    words = _in_words(verdicts, "is lower than", "is higher than", "cannot be told from that")
    last = " It is the worst line there, as in the paper." if set(verdicts.values()) == {1} else ""
    return [f"At S = {steps}, the FID of {line_name(worst)} {words}.{last}"]


def _errors_fall(errors: Errors) -> list[str]:
    """Compares each S with the next larger one, image by image (paired t-test)."""
    if len(errors) < 2:
        return []
    tests = {
        f"S = {few} to {many}": _paired(errors[many], errors[few])
        for few, many in pairwise(sorted(errors))
    }
    verdicts = _verdicts(tests)
    if set(verdicts.values()) == {-1}:
        return [
            "The reconstruction error falls at every increase of S (paired over images); the "
            "paper's, as printed, falls up to S = 500."
        ]
    words = _in_words(verdicts, "falls", "rises")
    return [f"The reconstruction error {words} (paired over images)."]


def _paired(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float]:
    """Returns the mean of a - b and the p-value of its being 0."""
    from scipy import stats

    gap = a - b
    mean = float(gap.mean())
    if len(gap) < 2:
        return mean, 1.0  # one image says nothing of others
    if float(gap.std()) == 0.0:
        return mean, 1.0 if mean == 0.0 else 0.0
    return mean, float(stats.ttest_1samp(gap, 0.0).pvalue)


def _one_and_others(
    rows: Sequence[CellRow], is_one: Callable[[CellRow], bool]
) -> tuple[int, CellRow | None, dict[str, CellRow]]:
    """The fewest steps, and there one line's row, if there is one, and the others' by name."""
    steps = min(row.steps for row in rows)
    there = [row for row in rows if row.steps == steps]
    one = next((row for row in there if is_one(row)), None)
    return steps, one, {line_name(row): row for row in there if row is not one}


def _verdicts(tests: Mapping[str, tuple[float, float]]) -> dict[str, int]:
    """Turns (difference, p-value) into -1 (below 0), 1 (above 0) or 0 (open), corrected."""
    corrected = holm([p for _, p in tests.values()])
    return {
        name: (-1 if value < 0 else 1) if p < LEVEL else 0
        for (name, (value, _)), p in zip(tests.items(), corrected, strict=True)
    }


def _in_words(
    verdicts: Mapping[str, int],
    below: str,
    above: str,
    neither: str = "shows no change beyond its interval",
) -> str:
    joint = "" if below.endswith("than") else " at"
    parts = []
    for sign, verb in ((-1, below), (1, above), (0, neither)):
        names = [name for name, verdict in verdicts.items() if verdict == sign]
        if names:
            link = (joint or " that of") if sign else (" at" if joint else " of")
            parts.append(f"{verb}{link} {', '.join(names)}")
    return "; ".join(parts)
