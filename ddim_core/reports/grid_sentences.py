"""What a grid's numbers say, in sentences that are computed from them.

Cells of a grid share x_T image by image, so two cells are compared by their paired difference,
and the tests of one question are corrected together (`compare`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import TypeVar

from ddim_core.decisions.compare import LEVEL, compare, difference, tied_with_best
from ddim_core.decisions.row import (
    CellRow,
    Setting,
    cell_name,
    is_ours,
    line_name,
    sampler_of,
    with_interval,
)
from ddim_core.decisions.verdict import pareto, proven_steps

S = TypeVar("S", bound=Setting)

CLIPS = (
    "Lines marked (clips) clip each predicted x0 to [-1, 1]{why}, and the others do not: what lies "
    "between the two is also the clipping."
)

NAMED = 12  # cells of a sentence; of more the others are counted


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


def read_grid(rows: Sequence[CellRow]) -> list[str]:
    """Says what the grid shows and what it does not: the trend in S, the order of the rows at
    the smallest S but one, the best cell and its ties, and signs of an undertrained model.

    Args:
        rows: Rows of the table, all of one grid.

    Returns:
        Sentences of plain text; every claim of a difference is beyond its paired interval.
    """
    if not rows:
        return ["No cell has a score."]
    if any(len(row.fid_leave_one_out) < 2 for row in rows):
        too_few = "There are too few images for intervals, so no difference is claimed."
        return [too_few, *mixed_clipping(rows)]
    said = [_best(rows), *_trend(rows), *_order(rows), *_undertrained(rows), *_guidance(rows)]
    said += [] if all(map(is_ours, rows)) else front_sentence(rows)
    return [*(sentence for sentence in said if sentence), *mixed_clipping(rows)]


def _best(rows: Sequence[CellRow]) -> str:
    best, *ties = tied_with_best(rows)
    fid = with_interval(best.fid, best.fid_low, best.fid_high)
    if len(rows) == 1:
        return f"The only cell is {cell_name(best)}: FID {fid}."
    tail = (
        f"{len(ties)} other cells cannot be told from it: {_some(ties)}"
        if len(ties) > 1
        else f"one other cell cannot be told from it: {cell_name(ties[0])}"
        if ties
        else "every other cell is worse beyond its paired interval"
    )
    sentence = f"The lowest FID is {fid} at {cell_name(best)}; {tail}."
    if not ties:
        return sentence
    cheapest = min([best, *ties], key=lambda row: row.nfe)
    calls = f"{cheapest.nfe} network calls an image"
    return f"{sentence} The cheapest of these is {cell_name(cheapest)}, {calls}."


def _some(rows: Sequence[CellRow]) -> str:
    """Names of cells, or of the first of many."""
    names = [cell_name(row) for row in rows]
    more = len(names) - NAMED
    said = "; ".join(names if more <= 1 else names[:NAMED])
    return said if more <= 1 else f"{said}; and {more} more, as the table shows"


def _trend(rows: Sequence[CellRow]) -> list[str]:
    """Compares the fewest with the most steps, on the lines that have both."""
    all_steps = [row.steps for row in rows]
    first, last = min(all_steps), max(all_steps)
    grouped = lines(rows)
    ends = {
        name: (line[0], line[-1])
        for name, line in grouped.items()
        if first < last and (line[0].steps, line[-1].steps) == (first, last)
    }
    if not ends:
        return []
    found = compare((most, fewest) for fewest, most in ends.values())
    tests = dict(zip(ends, found, strict=True))
    falls = [n for n, test in tests.items() if test.verdict == "better"]
    rises = [n for n, test in tests.items() if test.verdict == "worse"]
    open_ = [n for n in tests if n not in falls and n not in rises]
    parts = []
    if falls:
        worst = max(tests[n].p_adjusted for n in falls)
        everywhere = "on every line of the grid" if len(falls) == len(grouped) else _at(falls)
        parts.append(f"falls {everywhere} (largest corrected p: {worst:.1g})")
    if rises:
        parts.append(f"rises {_at(rises)}")
    if open_:
        parts.append(f"shows no difference beyond its interval {_at(open_)}")
    return [f"From S = {first} to S = {last} FID {', '.join(parts)}."]


def _order(rows: Sequence[CellRow]) -> list[str]:
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
    ordered = sorted(at_each[steps], key=lambda row: row.fid)
    pairs = list(combinations(ordered, 2))
    if not pairs:
        return []
    tests = compare((worse, better) for better, worse in pairs)
    beaten: dict[str, list[str]] = {}
    for (better, worse), test in zip(pairs, tests, strict=True):
        if test.p_adjusted < LEVEL:
            beaten.setdefault(line_name(better), []).append(line_name(worse))
    if not beaten:
        return [f"{where} no line of the grid can be told from another."]
    wins = "; ".join(f"{better} beats {', '.join(worse)}" for better, worse in beaten.items())
    n = f"{len(pairs)} comparison{'s' if len(pairs) > 1 else ''}"
    return [f"{where}, beyond paired intervals corrected for {n}: {wins}."]


def _undertrained(rows: Sequence[CellRow]) -> list[str]:
    """Recognises the sign of an undertrained model: eta 0 gets worse with S where eta 1 is better.

    Errors of the score add up along the deterministic path, and noise repairs some of them.
    """
    zero, one = _unguided(rows, 0.0), _unguided(rows, 1.0)
    if len(zero) < 2 or not one:
        return []
    rise = difference(zero[-1], zero[0])
    noisy = [row for row in one if row.steps == zero[-1].steps]
    if not noisy or rise.low <= 0 or difference(zero[-1], noisy[0]).low <= 0:
        return []
    return [
        f"FID rises with S at eta = 0 (by {rise.value:.2f} [{rise.low:.2f}, {rise.high:.2f}] from "
        f"S = {zero[0].steps} to {zero[-1].steps}) while eta = 1 is better: the model is "
        "undertrained or is not the one the schedule was made for, or the steps are taken in a "
        "wrong order (the timesteps in the table tell of that)."
    ]


def _unguided(rows: Sequence[CellRow], eta: float) -> list[CellRow]:
    """The line of an eta without guidance, in order of S."""
    setting = ("eta", eta, 1.0)
    found = [r for r in rows if is_ours(r) and (r.variance, r.eta, r.guidance_scale) == setting]
    return sorted(found, key=lambda row: row.steps)


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
    rising = [p for p in pairs if _share(p[1])[1] > _share(p[0])[2]]
    if not rising:
        return [
            f"From guidance {scales[0]:g} to {scales[-1]:g} the share of images in which the "
            "classifier finds the class asked for rises nowhere beyond its intervals."
        ]
    before, after = max(rising, key=lambda p: p[1].steps)
    return [
        f"From guidance {scales[0]:g} to {scales[-1]:g} the share of images in which the "
        f"classifier finds the class asked for rises beyond its intervals in {len(rising)} of "
        f"{len(pairs)} settings; at S = {after.steps}: from {_shown(before)} to {_shown(after)}."
    ]


def front_sentence(rows: Sequence[CellRow]) -> list[str]:
    """Names the cells that no other beats at once in FID and in network calls."""
    front = pareto(rows)
    if len(front) < 2:
        return []
    named = [
        f"{row.nfe} calls: {row.fid:.2f} ({cell_name(row)}"
        + ("" if proven else "; not told from the cheaper one")
        + ")"
        for row, proven in zip(front, proven_steps(front), strict=True)
    ]
    return [f"Pareto front of FID against network calls an image: {', '.join(named)}."]


def _share(row: CellRow) -> tuple[float, float, float]:
    """A judged row's share of the asked class, with its interval."""
    return row.class_accuracy or 0.0, row.class_accuracy_low or 0.0, row.class_accuracy_high or 0.0


def _shown(row: CellRow) -> str:
    share, low, high = (100.0 * part for part in _share(row))
    return f"{share:.1f} % [{low:.1f}, {high:.1f}]"


def _at(names: Sequence[str]) -> str:
    return f"at {', '.join(names)}"
