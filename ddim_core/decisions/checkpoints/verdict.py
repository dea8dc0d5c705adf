"""Did the new checkpoint get better: its grid against another checkpoint's, cell by cell.

Both grids were drawn from the same seed in the same shards, so cell meets cell with the same x_T
and the same noise, and their difference is tested as a paired one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ddim_core.decisions.compare import difference
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.place import names_cell
from ddim_core.decisions.row import CellRow, cell_name, loras_of, place_of, sampler_of
from ddim_core.statistics.holm import holm
from ddim_core.statistics.paired import beyond
from ddim_core.statistics.training_noise import TrainingNoise

LEVEL = 0.05
Call = Literal["better", "worse", "tied", "identical", "untested"]
# What two rows must share for their distances to be comparable, and their noise to be shared.
PROTOCOL = (
    "extractor_digest", "reference_digest", "resize", "resolution", "n_images", "shard_size",
    "seed", "dtype",
)  # fmt: skip
SETTING = (
    "steps", "variance", "eta", "spacing", "clip", "guidance_scale", "guidance_interval",
    "guidance_channels", "guide_digest", "loras",
)  # fmt: skip


@dataclass(frozen=True)
class CellVerdict:
    """One cell of two checkpoints.

    Attributes:
        new, baseline: The cell's row of either checkpoint, as in the table.
        difference, low, high: The value of new minus that of baseline with its 95 % interval; of a
            distance, below 0 is better. None where there are too few images for intervals.
        p_value: Two-sided, of the paired difference lying within the margin; alone. With twins the
            larger of that and of a difference between two trainings (`decisions.twins`).
        p_corrected: The same after Holm's correction over the grid's cells.
        call: From p_corrected.
        noise: How far trainings of one recipe lie apart here, where twins were given.
        reach: How far two of them differ in 95 % of cases, in the unit of what decides.
    """

    new: CellRow
    baseline: CellRow
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_corrected: float | None
    call: Call
    noise: TrainingNoise | None = None
    reach: float | None = None

    @property
    def name(self) -> str:
        return cell_name(self.new)

    @property
    def is_beyond_sampling(self) -> bool:
        """Whether the sampling of images alone does not explain the difference."""
        return self.low is not None and self.high is not None and self.low * self.high > 0.0

    @property
    def within_noise(self) -> bool:
        """Whether it is tied for what trainings of the twins' recipe differ by."""
        return self.noise is not None and self.is_beyond_sampling and self.call == "tied"


@dataclass(frozen=True)
class Verdict:
    """A checkpoint judged against another.

    Attributes:
        call: At the operating point: one test, its p-value uncorrected. `identical` by content.
        point: The operating point; None if identical.
        cells: Every cell that both grids have, in the new grid's order.
        level: Of the tests.
        margin: The largest difference that does not count.
        measure: What decides.
        twins: Names of the trainings whose spread counts as no difference, if any were given.
    """

    call: Call
    point: CellVerdict | None
    cells: tuple[CellVerdict, ...]
    level: float = LEVEL
    margin: float = 0.0
    measure: Measure = FID
    twins: tuple[str, ...] = ()


IDENTICAL = Verdict("identical", None, ())


def judge(
    new: Sequence[CellRow],
    baseline: Sequence[CellRow],
    at: str = "",
    level: float = LEVEL,
    margin: float = 0.0,
    measure: Measure = FID,
) -> Verdict:
    """Judges a checkpoint's grid against another checkpoint's.

    The operating point is the cell where both checkpoints together have the best value: chosen by
    the sum, the choice favours neither (the best cell of one of them alone was lucky there, and the
    other would look worse than it is). Its test decides the verdict. The other cells' tests are
    corrected for their number by Holm's procedure.

    Args:
        new, baseline: Rows of the table, each of one checkpoint; cells that only one has are left
            out.
        at: The operating point, `S` and eta, such as `20,0.5` or `20,sigma-hat`; empty chooses.
        level: Probability of calling equal checkpoints different at the operating point.
        margin: The largest difference, either way, that counts as none.
        measure: What decides.

    Raises:
        ValueError: If the protocols differ (which fields, is said), no cell is in both, the
            operating point is not in the grids, level or margin cannot be, or a row has no value
            of what decides.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; it must lie between 0 and 1")
    if not 0.0 <= margin < math.inf:
        raise ValueError(f"margin is {margin}; it must be at least 0")
    others = {setting_of(row): row for row in baseline}
    pairs = [(row, others[setting_of(row)]) for row in new if setting_of(row) in others]
    if new and baseline:
        require_same_protocol(new[0], baseline[0])
    if not pairs:
        raise ValueError("the two checkpoints have no cell in common; score both with one grid")
    for ours, theirs in pairs:
        require_same_protocol(ours, theirs)
    cells = _cells(pairs, level, margin, measure)
    point = _chosen(cells, at, measure)
    call = _call(point.difference, point.p_value, level, measure)
    return Verdict(call, point, tuple(cells), level, margin, measure)


def require_same_protocol(a: CellRow, b: CellRow) -> None:
    """Makes sure that two rows' distances may be compared, and share their noise.

    Raises:
        ValueError: If they may not; it names every field that differs, with both values.
    """
    both = [(name, getattr(a, name), getattr(b, name)) for name in PROTOCOL]
    unlike = [f"{name} ({ours} and {theirs})" for name, ours, theirs in both if ours != theirs]
    if a.group_sizes != b.group_sizes:
        unlike.append("group_sizes")
    if unlike:
        raise ValueError(
            f"rows of different protocol cannot be compared: they differ in {', '.join(unlike)}"
        )


def setting_of(row: CellRow) -> tuple[Any, ...]:
    """What makes cells of two checkpoints one cell of both grids; what people call a LoRA's file
    plays no part."""
    laid = tuple((lora.digest, lora.scale) for lora in loras_of(row)) or row.loras or None
    named = (getattr(row, name) for name in SETTING if name != "loras")
    return (sampler_of(row), *named, laid)


def one_row_a_cell(rows: Sequence[CellRow], device: str) -> list[CellRow]:
    """Returns rows, of each checkpoint's cell those of one place: of a device where there are such,
    of the newest of several. A cell may have been drawn on a CPU and on a card, or in batches of
    two sizes; rows of one place all stay, but of those judged by other scores of images, which are
    the same images: there the one with most of them."""

    def cell_of(row: CellRow) -> tuple[Any, ...]:
        of = row.weights_digest or row.checkpoint_digest
        return (of, setting_of(row), row.prompts_digest, row.noise_schedule, row.prediction_type)

    def place_of(row: CellRow) -> tuple[Any, ...]:
        return row.device, row.images_at_once, row.compiled, row.image_scores

    def newest_last(row: CellRow) -> tuple[Any, ...]:
        return row.device == device, row.created_at, len(row.image_scores or "")

    chosen: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in sorted(rows, key=newest_last):
        chosen[cell_of(row)] = place_of(row)
    return [row for row in rows if place_of(row) == chosen[cell_of(row)]]


def protocol_of(row: CellRow) -> tuple[Any, ...]:
    """What rows must share for their distances to be comparable."""
    return tuple(getattr(row, name) for name in PROTOCOL)


def pareto(rows: Sequence[CellRow], measure: Measure = FID) -> list[CellRow]:
    """Returns the cells that no other beats at once in what decides and in cost, the cheapest
    first.

    Cost is network calls per image (column `nfe`); values get strictly better along the front.
    """
    front: list[CellRow] = []
    for row in sorted(rows, key=lambda row: (row.nfe, measure.cost(row))):
        if not front or measure.cost(row) < measure.cost(front[-1]):
            front.append(row)
    return front


def proven_steps(front: Sequence[CellRow], measure: Measure = FID) -> list[bool]:
    """Tells for each cell of a front whether it beats the cheaper one before it, beyond chance.

    Paired tests along the front, Holm over its steps; the first has nothing before it: True.
    """
    steps = list(zip(front[1:], front[:-1], strict=True))
    if not measure.has_intervals(front):
        return [True] + [False] * len(steps) if front else []
    tests = [difference(dear, cheap, measure).p_value for dear, cheap in steps]
    return [True, *(p < LEVEL for p in (holm(tests) if tests else []))] if front else []


def _cells(
    pairs: Sequence[tuple[CellRow, CellRow]], level: float, margin: float, measure: Measure
) -> list[CellVerdict]:
    if not measure.has_intervals([row for pair in pairs for row in pair]):
        return [
            CellVerdict(new, old, None, None, None, None, None, "untested") for new, old in pairs
        ]
    tests = [difference(new, old, measure) for new, old in pairs]
    groups = len(measure.group_sizes(pairs[0][0]))
    p_values = [beyond(test, margin, groups) for test in tests]
    return [
        CellVerdict(new, old, t.value, t.low, t.high, p, q, _call(t.value, q, level, measure))
        for (new, old), t, p, q in zip(pairs, tests, p_values, holm(p_values), strict=True)
    ]


def _call(value: float | None, p_value: float | None, level: float, measure: Measure) -> Call:
    if value is None or p_value is None:
        return "untested"
    if p_value >= level:
        return "tied"
    return "better" if (value < 0.0) == measure.lower_is_better else "worse"


def _chosen(cells: Sequence[CellVerdict], at: str, measure: Measure) -> CellVerdict:
    if not at:
        return min(cells, key=lambda cell: measure.cost(cell.new) + measure.cost(cell.baseline))
    for cell in cells:
        if names_cell(cell.new, at):
            return cell
    there = "; ".join(f"{cell.new.steps},{place_of(cell.new)}" for cell in cells)
    raise ValueError(f"there is no cell {at!r} in both grids; there are {there}")
