"""What a verdict says, in sentences that are computed from it; and the course of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddim_core.decisions.best import Ranking, rank, usual_margin
from ddim_core.decisions.checkpoints.verdict import CellVerdict, Verdict
from ddim_core.decisions.compare import difference
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.reports.grid_sentences import front_sentence, mixed_clipping, read_best

ENOUGH, ENOUGH_FACTOR = 8, 2.36  # trainings, and Student's t at one fewer


@dataclass(frozen=True)
class BestOf:
    """The best cell of one checkpoint.

    Attributes:
        best: Its row with the best value.
        ties: The others that cannot be told from the best; empty with too few images for a test.
        ranking: All of them beside the best; None with too few images.
    """

    best: CellRow
    ties: tuple[CellRow, ...]
    ranking: Ranking | None = None


def read_verdict(
    verdict: Verdict, rows: Sequence[CellRow], history: Sequence[Sequence[CellRow]]
) -> list[str]:
    """Says what was found: the verdict, the other cells, the best cell, the front, the drift.

    Args:
        verdict: Of the new checkpoint against its baseline.
        rows: The new checkpoint's rows.
        history: Each checkpoint's rows in order of age, the new one's last (`by_checkpoint`).
    """  # fmt: skip
    if verdict.point is None:
        return ["Identical: the two checkpoints hold the same weights and settings; nothing had "
                "to be sampled to tell."]  # fmt: skip
    measure = verdict.measure
    said = [headline(verdict), *training_sentence(verdict), *_devices(verdict)]
    said += [*_cells(verdict), *_best(rows, verdict), *front_sentence(rows, measure)]
    said += _drift(history, measure)
    return [*(sentence for sentence in said if sentence), *mixed_clipping(rows)]


def headline(verdict: Verdict) -> str:
    """The verdict in one sentence, with the difference, its interval and its p-value."""
    point = verdict.point
    if point is None:
        return "Identical: the same weights and settings."
    measure = verdict.measure
    values = f"{measure.title} {measure.shown(point.new)} against {measure.shown(point.baseline)}"
    if point.call == "untested" or point.p_value is None:
        return f"Untested at {point.name}: {values}; there are too few images for intervals."
    margin = f", margin {verdict.margin:g}" if verdict.margin else ""
    noise = " with training noise" if point.noise else ""
    return (
        f"{verdict.call.capitalize()} at {point.name}: {values}; paired difference "
        f"{signed(point, measure)}, p = {point.p_value:.2g}{noise}{margin}."
    )


def training_sentence(verdict: Verdict) -> list[str]:
    """Says how far trainings of one recipe lie apart, and where the difference lies in that."""
    point = verdict.point
    if point is None or point.noise is None or point.reach is None:
        return []
    noise, k = point.noise, point.noise.trainings
    how = (
        "The difference is more than training noise"
        if verdict.call != "tied"
        else "The difference is within training noise"
        if point.is_beyond_sampling
        else "The sampling of images alone may explain the difference"
    )
    # Names are the data's: in code spans, where Markdown is not read.
    names = ", ".join(f"`{name.replace('`', '')}`" for name in verdict.twins)
    more = "" if k >= ENOUGH else f"; with {ENOUGH} the factor would be {ENOUGH_FACTOR}"
    return [
        f"{how}: {k} trainings of one recipe ({names}) score here with a "
        f"standard deviation of {noise.sd:.3g} [{noise.low:.3g}, {noise.high:.3g}] of "
        f"{verdict.measure.title}, the error of sampling taken off, so that two of them differ by "
        f"up to {point.reach:.3g} in 95 % of cases ({noise.factor:.3g} times the spread of a "
        f"difference, for {k} trainings{more})."
    ]


def signed(cell: CellVerdict, measure: Measure = FID) -> str:
    """A cell's difference with its 95 % interval; of a distance, below 0 is better."""
    if cell.difference is None:
        apart = measure.value(cell.new) - measure.value(cell.baseline)
        return f"{apart:+.3f} [too few images for an interval]"
    return f"{cell.difference:+.3f} [{cell.low:+.3f}, {cell.high:+.3f}]"


def by_checkpoint(rows: Sequence[CellRow]) -> list[list[CellRow]]:
    """Groups rows by checkpoint content, in order of training step where all have one, else of
    when they were first scored."""
    groups: dict[str, list[CellRow]] = {}
    for row in rows:
        groups.setdefault(row.weights_digest or row.checkpoint_digest, []).append(row)
    series = list(groups.values())
    if all(row.training_step is not None for row in rows):
        return sorted(series, key=lambda rows: (rows[0].training_step or 0, first_scored(rows)))
    return sorted(series, key=first_scored)


def first_scored(rows: Sequence[CellRow]) -> str:
    """When the first of the rows was scored, as ISO text."""
    return min(row.created_at for row in rows)


def best_of(rows: Sequence[CellRow], measure: Measure = FID, margin: float = 0.0) -> BestOf:
    """Finds a checkpoint's best cell and its ties.

    Raises:
        ValueError: If a row has no value of what decides; says what gives it one.
    """
    if not measure.has_intervals(rows):
        return BestOf(min(rows, key=measure.cost), ())
    found = rank(rows, measure, usual_margin(rows, measure, asked=margin))
    return BestOf(found.best.row, tuple(tie.row for tie in found.ties), found)


def _cells(verdict: Verdict) -> list[str]:
    """Counts the cells by their corrected calls and names those that changed."""
    n = len(verdict.cells)
    if n < 2 or verdict.call == "untested":
        return []
    calls = {c: [x.name for x in verdict.cells if x.call == c] for c in ("better", "worse")}
    whole = next((call for call, names in calls.items() if len(names) == n), None)
    if whole:
        return [f"All {n} cells, corrected for {n} comparisons (Holm), are {whole}."]
    parts = [f"{len(names)} {call} ({'; '.join(names)})" for call, names in calls.items() if names]
    tied = n - sum(map(len, calls.values()))
    within = sum(cell.within_noise for cell in verdict.cells)
    noted = f" ({within} of them within training noise)" if within else ""
    parts += [f"{tied} tied{noted}"] if tied else []
    return [f"Of {n} cells, corrected for {n} comparisons (Holm): {', '.join(parts)}."]


def _devices(verdict: Verdict) -> list[str]:
    """Says so where the images that are compared were drawn on two kinds of device."""
    kinds = sorted({(c.new.device, c.baseline.device) for c in verdict.cells})
    apart = [f"{new} and {old}" for new, old in kinds if new != old]
    if not apart:
        return []
    return [
        f"The new checkpoint's images and the baseline's were drawn on {', '.join(apart)}, whose "
        "arithmetic rounds differently: part of a small difference may be theirs."
    ]


def _best(rows: Sequence[CellRow], verdict: Verdict) -> list[str]:
    found = best_of(rows, verdict.measure, verdict.margin)
    if found.ranking is None:
        title = f"{verdict.measure.extreme} {verdict.measure.title}"
        return [f"Its {title} is {verdict.measure.shown(found.best)} at {cell_name(found.best)}."]
    first, *more = read_best(found.ranking)
    return [f"Of the new checkpoint: {first[0].lower()}{first[1:]}", *more]


def _drift(history: Sequence[Sequence[CellRow]], measure: Measure) -> list[str]:
    """Says whether the best cell moved since the checkpoint before, and whether that is proven."""
    if len(history) < 2:
        return []
    before, now = best_of(history[-2], measure), best_of(history[-1], measure)
    if cell_name(before.best) == cell_name(now.best):
        return [f"The best cell is where it was: {cell_name(now.best)}."]
    where = f"from {cell_name(before.best)} to {cell_name(now.best)}"
    old = [row for row in history[-1] if cell_name(row) == cell_name(before.best)]
    if not old or not measure.has_intervals(old):
        return [f"The best cell moved {where}."]
    cost = difference(old[0], now.best, measure)
    sign = 1.0 if measure.lower_is_better else -1.0
    value, *ends = (measure.number(sign * x) for x in (cost.value, cost.low, cost.high))
    gain = f"{value} [{', '.join(sorted(ends, key=float))}]"
    if any(cell_name(row) == cell_name(before.best) for row in now.ties):
        return [f"The best cell moved {where}, within chance: the two are tied here."]
    return [
        f"The best cell moved {where}; keeping the old one would cost {gain} of {measure.title}."
    ]
