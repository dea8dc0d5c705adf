"""What a grid's numbers say, in sentences that are computed from them.

Cells of a grid share x_T image by image, so two cells are compared by their paired difference,
and what answers one question is corrected together: the best cell and its ties (`best`), the course
over S (`shapes`), the lines at one S (`compare`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TypeVar

from ddim_core.decisions.best import Margin, Ranking, Standing, rank
from ddim_core.decisions.checkpoints.verdict import pareto, proven_steps
from ddim_core.decisions.compare import LEVEL, compare, pairing
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import (
    CellRow,
    Setting,
    cell_name,
    is_ours,
    line_name,
    sampler_of,
)
from ddim_core.decisions.shapes import Shape, n_comparisons, shapes
from ddim_core.reports.asked_for import share_of, share_text

S = TypeVar("S", bound=Setting)

CLIPS = (
    "Lines marked (clips) clip each predicted x0 to [-1, 1]{why}, and the others do not: what lies "
    "between the two is also the clipping."
)

NAMED = 12  # cells of a sentence; of more the others are counted
CAUSES = (
    "a model that is not trained enough, whose errors add up along the path; a noise schedule or "
    "prediction type that is not the one it was trained with; steps taken in a wrong order; images "
    "that are scaled or decoded wrongly; features or a reference that do not suit the images"
)
TURNS = {"falls": "falls and then rises (a U)", "rises": "rises and then falls (a hump)"}
BUYS = 0.95  # of the unpaired standard error: from there on pairing saves less than a tenth


def mixed_clipping(rows: Iterable[CellRow]) -> list[str]:
    """Says that some rows clip and others do not, where that is so."""
    told = list(rows)
    if len({bool(row.clip) for row in told}) < 2:
        return []
    official = all(is_ours(row) for row in told if row.clip)
    why = ", as the official DDIM code does for sigma-hat" if official else ""
    return [CLIPS.format(why=why)]


def why_no_fid_inf(row: CellRow) -> str:
    """Says why a row's fid_inf is null; nothing if it is not."""
    if row.fid_inf is not None:
        return ""
    n, d, groups = row.n_images, row.n_features, row.group_sizes
    if len(groups) < 2:
        return f"FID_inf is null: {n} images are too few to leave any out."
    return (
        f"FID_inf is null: N = {n} images, less any one group of up to {max(groups)}, do not "
        f"exceed the d = {d} features by 2. In some directions of feature space the images then "
        f"show no variance at all, and nothing tells whether they have any; it takes more than "
        f"{d + 1} images beside each group."
    )


def lines(rows: Sequence[S]) -> dict[str, list[S]]:
    """Groups cells into lines of one eta (or sigma-hat), each in order of S."""
    grouped: dict[str, list[S]] = {}
    for row in rows:
        grouped.setdefault(line_name(row), []).append(row)
    return {name: sorted(line, key=lambda r: r.steps) for name, line in grouped.items()}


def read_grid(
    rows: Sequence[CellRow], measure: Measure = FID, margin: Margin | None = None
) -> list[str]:
    """Says what the grid shows and what it does not: the best cell, its ties and the cell to take,
    the course over S, the order of the lines at the smallest S but one, and what pairing bought.

    Args:
        rows: Rows of the table, all of one grid.
        measure: What decides.
        margin: A difference that does not count; None takes 2 % of the best value.

    Returns:
        Sentences of plain text; every claim of a difference is beyond its paired interval.

    Raises:
        ValueError: If a row has no value of what decides; says what gives it one.
    """
    if not rows:
        return ["No cell has a score."]
    if not measure.has_intervals(rows):
        too_few = "There are too few images for intervals, so no difference is claimed."
        return [too_few, *mixed_clipping(rows)]
    said = [*read_best(rank(rows, measure, margin)), *_course(rows, measure)]
    said += [*_order(rows, measure), *_guidance(rows)]
    said += [] if all(map(is_ours, rows)) else front_sentence(rows, measure)
    return [*said, *read_pairing(rows, measure), *mixed_clipping(rows)]


def read_best(found: Ranking) -> list[str]:
    """Names the best cell, how much worse those may be that cannot be told from it, and the cell
    to take: the cheapest of those shown not to be worse by more than the margin."""
    best, title = found.best, found.measure.title
    value, name = found.measure.shown(best.row), cell_name(best.row)
    if len(found.standings) == 1:
        return [f"The only cell is {name}: {title} {value}."]
    ties = found.ties
    tail = (
        f"{len(ties)} other cells cannot be told from the best: {_some(ties, found.measure)}"
        if len(ties) > 1
        else f"one other cell cannot be told from the best: {_tie(ties[0], found.measure)}"
        if ties
        else "every other cell is worse beyond its interval"
    )
    return [
        f"The {found.measure.extreme} {title} is {value} at {name}; {tail} (intervals hold for all "
        "cells together).",
        _recommended(found),
    ]


def _recommended(found: Ranking) -> str:
    """What to take, or how many images it would take to say."""
    measure, within = found.measure, found.within
    size = f"{measure.number(found.margin.value)} of the best ({found.margin.source})"
    if not within:
        may = measure.number(found.best.high)
        return (
            f"No cell is shown to be within {size}, not even the {measure.extreme}, which may be "
            f"up to {may} worse than another; so none is recommended{settled(found, '; ')}."
        )
    take = within[0].row
    cost = f"{cell_name(take)}, {take.nfe} network calls an image"
    if within == [found.best]:
        return (
            f"Only the {measure.extreme} itself is shown to be within {size}; so {cost}, is "
            f"recommended{settled(found, '; ')}."
        )
    several = f"{len(within)} cells are" if len(within) > 1 else "One cell is"
    cheapest = "the cheapest of them" if len(within) > 1 else "it"
    return (
        f"{several} shown to be within {size}: {cheapest}, {cost}, is recommended"
        f"{settled(found, '; ')}."
    )


def settled(found: Ranking, before: str) -> str:
    """Says how many images a cell settle all that is open; empty where nothing is.

    Args:
        found: Cells beside the best of them.
        before: What joins it to the sentence that it ends.
    """
    margin = found.margin.value
    open_ = [one for one in found.standings if one.tied and one.high > margin]
    wanted = [one.decided_at for one in open_ if one.decided_at]
    if not open_:
        return ""
    if len(wanted) < len(open_):
        return f"{before}of some cells no number of images would tell"
    others = "all" if found.best in open_ else "the others"
    return f"{before}N = {max(wanted):,} images a cell would settle {others}, if the numbers stay"


def _tie(one: Standing, measure: Measure) -> str:
    """A cell, how much worse it may be, and how many images would decide that."""
    may = f"{cell_name(one.row)} may be up to {measure.number(one.high)} worse"
    return f"{may} (N = {one.decided_at:,} would decide it)" if one.decided_at else may


def _some(ties: Sequence[Standing], measure: Measure) -> str:
    """Cells that are tied, or the first of many."""
    said = [_tie(one, measure) for one in ties]
    more = len(said) - NAMED
    if more <= 1:
        return "; ".join(said)
    return f"{'; '.join(said[:NAMED])}; and {more} more, as the table shows"


def _course(rows: Sequence[CellRow], measure: Measure) -> list[str]:
    """Says what each line does from its fewest to its most steps."""
    grouped = lines(rows)
    found = shapes(grouped, measure)
    if not found:
        return []
    falls, rises = ("falls", "rises") if measure.lower_is_better else ("rises", "falls")
    does = {
        "better": falls, "worse": rises, "best inside": TURNS[falls], "worst inside": TURNS[rises],
        "turns": "turns more than once",
        "plateau": "shows no difference beyond its intervals",
    }  # fmt: skip
    parts = []
    for kind, verb in does.items():
        alike = [shape for shape in found if shape.kind == kind]
        if alike:
            where = "on every line of the grid: " if len(alike) == len(grouped) else ""
            named = ", ".join(_shape(shape, measure) for shape in alike)
            parts.append(f"{verb} {where}at {named}")
    n = n_comparisons(grouped)
    corrected = f"all pairs of S on a line compared, corrected for {n}"
    course = f"With more steps {measure.title} {'; '.join(parts)} ({corrected})."
    return [course, *_inverted(found, measure)]


def _shape(shape: Shape, measure: Measure) -> str:
    """A line with the S where it turns and from which on it is level."""
    turns = [f"S = {leg.last.steps}" for leg in shape.legs[:-1]]
    notes = [f"turning near {', '.join(turns)}"] if turns else []
    if shape.legs and shape.level_from is not None:
        within = measure.number(shape.level_within)
        notes.append(f"level from S = {shape.level_from.steps} on, within {within}")
    return f"{shape.name} ({'; '.join(notes)})" if notes else shape.name


def _inverted(found: Sequence[Shape], measure: Measure) -> list[str]:
    """Says where more steps make it worse, and what can cause that."""
    wrong = [shape for shape in found if shape.inverted]
    if not wrong:
        return []
    ends = "; ".join(
        f"{shape.name}: {measure.number(measure.value(shape.legs[0].first))} at "
        f"S = {shape.legs[0].first.steps}, {measure.number(measure.value(shape.legs[0].last))} at "
        f"S = {shape.legs[0].last.steps}"
        for shape in wrong
    )
    where = "on every line" if len(wrong) == len(found) else "on some lines"
    said = f"The trend is inverted {where}, more steps make it worse ({ends})."
    mended = " Noise on the way may mend part of it on the others."
    return [
        f"{said} Possible causes, which these numbers cannot tell apart: {CAUSES}. The schedule's "
        "findings and the timesteps in the table bear on the second and the third."
        + (mended if len(wrong) < len(found) else "")
    ]


def read_pairing(rows: Sequence[CellRow], measure: Measure) -> list[str]:
    """Says what the shared noise bought in this grid."""
    found = pairing(rows, measure)
    if found is None:
        return []
    kinds = "; ".join(f"{name}: {ratio:.2f} ({n})" for name, n, ratio in found.kinds)
    little = [name for name, _, ratio in found.kinds if ratio > BUYS]
    verdict = (
        "the shared noise buys next to nothing in this grid"
        if len(little) == len(found.kinds)
        else f"it buys next to nothing of this kind: {', '.join(little)}"
        if little
        else "the square of a ratio is the share of images that the same interval takes"
    )
    of = f"median of {found.n_pairs} pairs" if found.n_pairs > 1 else "1 pair"
    return [
        f"What pairing buys: the standard error of a difference is {found.median:.2f} of what "
        f"independent seeds would give ({of}; by kind, with their number: {kinds}); {verdict}."
    ]


def _order(rows: Sequence[CellRow], measure: Measure) -> list[str]:
    """Compares all lines at a small S, where they differ most in the paper: 10 if it is there; at
    equal network calls, where steps of some samplers ask the network more often."""
    by_calls = len({row.nfe / row.steps for row in rows if row.nfe}) > 1 and not all(
        map(is_ours, rows)
    )
    at_each: dict[int, list[CellRow]] = {}
    for row in rows:
        at_each.setdefault(row.nfe if by_calls else row.steps, []).append(row)
    steps = 10 if 10 in at_each else min(at_each, key=lambda n: (-len(at_each[n]), n))
    where = f"At {steps} network calls" if by_calls else f"At S = {steps}"
    ordered = sorted(at_each[steps], key=measure.cost)
    pairs = list(combinations(ordered, 2))
    if not pairs:
        return []
    tests = compare(((worse, better) for better, worse in pairs), measure)
    beaten: dict[str, list[str]] = {}
    for (better, worse), test in zip(pairs, tests, strict=True):
        if test.p_adjusted < LEVEL:
            beaten.setdefault(line_name(better), []).append(line_name(worse))
    if not beaten:
        return [f"{where} no line of the grid can be told from another."]
    wins = "; ".join(f"{better} beats {', '.join(worse)}" for better, worse in beaten.items())
    n = f"{len(pairs)} comparison{'s' if len(pairs) > 1 else ''}"
    return [f"{where}, beyond paired intervals corrected for {n}: {wins}."]


def _guidance(rows: Sequence[CellRow]) -> list[str]:
    """Compares the asked class's share of images at the least and the most guidance, by cells."""
    judged = [row for row in rows if row.class_accuracy is not None]
    scales = sorted({row.guidance_scale for row in judged})
    if len(scales) < 2:
        return []
    first, last = (
        {(sampler_of(r), r.eta, r.steps): r for r in judged if r.guidance_scale == scale}
        for scale in (scales[0], scales[-1])
    )
    pairs = [(first[key], last[key]) for key in first if key in last]
    rising = [p for p in pairs if share_of(p[1])[1] > share_of(p[0])[2]]
    if not rising:
        return [
            f"From guidance {scales[0]:g} to {scales[-1]:g} the share of images in which the "
            "classifier finds the class asked for rises nowhere beyond its intervals."
        ]
    before, after = max(rising, key=lambda p: p[1].steps)
    return [
        f"From guidance {scales[0]:g} to {scales[-1]:g} the share of images in which the "
        f"classifier finds the class asked for rises beyond its intervals in {len(rising)} of "
        f"{len(pairs)} settings; at S = {after.steps}: from {share_text(before)} to "
        f"{share_text(after)}."
    ]


def front_sentence(rows: Sequence[CellRow], measure: Measure = FID) -> list[str]:
    """Names the cells that no other beats at once in what decides and in network calls."""
    front = pareto(rows, measure)
    if len(front) < 2:
        return []
    named = [
        f"{row.nfe} calls: {measure.number(measure.value(row))} ({cell_name(row)}"
        + ("" if proven else "; not told from the cheaper one")
        + ")"
        for row, proven in zip(front, proven_steps(front, measure=measure), strict=True)
    ]
    said = f"Pareto front of {measure.title} against network calls an image"
    return [f"{said}: {', '.join(named)}."]
