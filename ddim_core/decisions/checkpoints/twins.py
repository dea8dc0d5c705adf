"""Whether a difference of two checkpoints is more than two trainings of one recipe have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ddim_core.decisions.checkpoints.verdict import (
    CellVerdict,
    Verdict,
    one_row_a_cell,
    protocol_of,
    require_same_protocol,
    setting_of,
)
from ddim_core.decisions.compare import difference
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.statistics.holm import holm
from ddim_core.statistics.training_noise import TrainingNoise

Rows = Sequence[CellRow]


def beyond_training_noise(verdict: Verdict, twins: Sequence[Rows]) -> Verdict:
    """Judges a verdict again: what two trainings of one recipe may differ by is called tied.

    In each cell the larger of two p-values counts: of the paired difference, and of a difference
    between two trainings of the recipe (`TrainingNoise`). So a call is `better` or `worse` where
    neither the images drawn nor the training's seed explain it. The checkpoints that are judged
    may be among the twins; that makes the test a little stricter.

    Args:
        verdict: Of two checkpoints.
        twins: The rows of each of at least 2 trainings of one recipe.

    Raises:
        ValueError: If the twins cannot be compared: which, and why.
    """
    if verdict.call in ("identical", "untested"):
        return verdict
    require_trainings(twins)
    measure = verdict.measure
    noises = [_of_cell(cell.new, twins, measure) for cell in verdict.cells]
    cells = [
        _within(cell, noise, verdict.margin, measure)
        for cell, noise in zip(verdict.cells, noises, strict=True)
    ]
    corrected = holm([cell.p_value or 0.0 for cell in cells])
    cells = [
        replace(cell, p_corrected=p, call=cell.call if p < verdict.level else "tied")
        for cell, p in zip(cells, corrected, strict=True)
    ]
    point = next(c for c in cells if verdict.point and c.new is verdict.point.new)
    decided = (point.p_value or 0.0) < verdict.level
    names = tuple(name_of(rows) for rows in twins)
    call = verdict.call if decided else "tied"
    return replace(verdict, call=call, point=point, cells=tuple(cells), twins=names)


def training_noise(rows: Rows, measure: Measure = FID) -> TrainingNoise:
    """Estimates the spread between trainings in one cell, from its row of each.

    Args:
        rows: Of the table.
        measure: What decides.

    Raises:
        ValueError: If the rows are no pairs (names the fields), one has no value, or there are
            fewer than 2.
    """
    errors = [difference(a, b, measure).se for a, b in combinations(rows, 2)]
    return TrainingNoise.of([measure.value(row) for row in rows], errors)


def require_trainings(twins: Sequence[Rows]) -> None:
    """Makes sure that checkpoints may be trainings of one recipe.

    Raises:
        ValueError: If there are fewer than 2, two have the same weights, or their training steps
            differ; it names them.
    """
    if len(twins) < 2:
        told = f"{name_of(twins[0])} alone tells" if twins else "no checkpoint tells"
        raise ValueError(f"{told} no spread between trainings; name at least 2 twins")
    for a, b in combinations(twins, 2):
        if a[0].weights_digest == b[0].weights_digest:
            raise ValueError(
                f"the twins {name_of(a)} and {name_of(b)} are the same weights "
                f"({a[0].weights_digest[:12]}); twins are trained from different seeds"
            )
        steps = a[0].training_step, b[0].training_step
        if steps[0] != steps[1]:
            raise ValueError(
                f"the twins {name_of(a)} and {name_of(b)} have different training steps ("
                f"{steps[0]} and {steps[1]}); give checkpoints of one step"
            )


@dataclass(frozen=True)
class NoiseAt:
    """How far trainings of a recipe lie apart in a cell, at the training step where they are
    compared; None where checkpoints do not say theirs."""

    step: int | None
    noise: TrainingNoise


def noise_over_steps(twins: Sequence[Rows], cells: Sequence[CellRow]) -> dict[str, list[NoiseAt]]:
    """Estimates the spread of FID between trainings in some cells, at each step of the twins.

    Args:
        twins: The rows of each checkpoint; those of one step are trainings of one recipe.
        cells: Rows of the cells that are asked for.

    Returns:
        By the cells' names, in order of step.

    Raises:
        ValueError: If a step has a single checkpoint, or as `beyond_training_noise`.
    """
    by_step: dict[int | None, list[Rows]] = {}
    for rows in twins:
        by_step.setdefault(rows[0].training_step, []).append(rows)
    for alike in by_step.values():
        require_trainings(alike)
    ordered = sorted(by_step.items(), key=lambda item: item[0] or 0)
    return {
        cell_name(cell): [NoiseAt(step, _of_cell(cell, alike, FID)) for step, alike in ordered]
        for cell in cells
    }


def reach_at(noise: Sequence[NoiseAt], step: float | None) -> float:
    """Returns how far two trainings of a recipe may lie apart at a step, with 95 %, in the score's
    unit: between the steps that are known interpolated, beyond them held; without a step the
    farthest."""
    known = [found for found in noise if found.step is not None]
    reaches = [found.noise.reach() for found in known]
    if step is None or not known:
        return max(found.noise.reach() for found in noise)
    return float(np.interp(step, [found.step or 0 for found in known], reaches))


def name_of(rows: Rows) -> str:
    """What a checkpoint is called."""
    return rows[0].checkpoint


def rows_like(rows: Rows, like: CellRow) -> Rows:
    """Returns a checkpoint's rows of another row's protocol, one a cell; all of its rows where it
    has none, for what differs to be named."""
    alike = [row for row in rows if protocol_of(row) == protocol_of(like)]
    return one_row_a_cell(alike or rows, like.device)


def _of_cell(cell: CellRow, twins: Sequence[Rows], measure: Measure) -> TrainingNoise:
    """The spread between trainings in the cell that a row is of."""
    found = []
    for rows in twins:
        own = next((r for r in rows if setting_of(r) == setting_of(cell)), None)
        if own is None:
            raise ValueError(
                f"the twin {name_of(rows)} has no cell {cell_name(cell)!r}; score it with the same "
                "grid"
            )
        try:
            require_same_protocol(own, cell)
        except ValueError as error:
            raise ValueError(f"{name_of(rows)} is no twin: {error}") from error
        found.append(own)
    return training_noise(found, measure)


def _within(
    cell: CellVerdict, noise: TrainingNoise, margin: float, measure: Measure
) -> CellVerdict:
    """A cell whose p-value counts both tests."""
    tested = difference(cell.new, cell.baseline, measure)
    p = max(cell.p_value or 0.0, noise.p_value(tested.value, tested.se, margin))
    return replace(cell, p_value=p, noise=noise, reach=noise.reach(tested.se))
