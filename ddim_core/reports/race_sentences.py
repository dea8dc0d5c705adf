"""What a race of cells has shown, in sentences and in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from ddim_core.decisions.best import rank
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.race import Outcome, Rules, Ruling
from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.reports.grid_figures import COLOURS, png
from ddim_core.reports.grid_sentences import mixed_clipping, settled

LOOKS = {"best": COLOURS[2], "front": COLOURS[2], "open": COLOURS[3], "beaten": COLOURS[6]}


def read_outcome(rows: Mapping[int, CellRow], outcome: Outcome, rules: Rules) -> list[str]:
    """Says what was decided, how surely, and what it cost.

    Args:
        rows: The newest row of each cell, by place.
        outcome, rules: What came of the race, and what was asked of it.
    """
    sure = f"{100 * rules.confidence:g} % confidence over {_rounds(outcome.rounds[1])}"
    by_status: dict[str, list[int]] = {}
    for i in rows:
        by_status.setdefault(outcome.rulings[i].status, []).append(i)
    said = _front if rules.goal == "front" else _best
    return [
        said(rows, outcome, by_status, sure), cost_sentence(rows, outcome, rules),
        basis_sentence(outcome.measure),
        *mixed_clipping(rows.values()),
    ]  # fmt: skip


def ruling_text(ruling: Ruling, rows: Mapping[int, CellRow], measure: Measure) -> str:
    """Says how one cell came out, for its line of the table."""
    test = ruling.test
    if test is not None and ruling.beaten_by is not None:
        by = rows[ruling.beaten_by]
        ends = ", ".join(measure.number(end) for end in (test.low, test.high))
        return f"beaten by {cell_name(by)}: {measure.signed(test.value)} [{ends}]"
    return {
        "best": "best", "front": "on the front", "open": "open: not told apart", "failed": "failed",
    }[ruling.status]  # fmt: skip


def race_figure(rows: Mapping[int, CellRow], outcome: Outcome) -> bytes:
    """Draws each cell's value with its interval, and beside it the images it got."""
    measure = outcome.measure
    shown = {i: _value(row, measure) for i, row in rows.items()}
    order = sorted(rows, key=lambda i: shown[i][0], reverse=measure.lower_is_better)
    figure = Figure(figsize=(9.0, 1.0 + 0.28 * len(order)))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    for y, i in enumerate(order):
        colour, (value, low, high) = LOOKS[outcome.rulings[i].status], shown[i]
        left.plot([value], [y], "o", color=colour, ms=4)
        if low is not None and high is not None:
            left.plot([low, high], [y, y], color=colour)
        right.barh(y, rows[i].n_images, color=colour)
    left.set_yticks(range(len(order)), [cell_name(rows[i]) for i in order], fontsize=8)
    ends = [shown[i][1] or shown[i][0] for i in order]
    if min(ends) > 0.0 and max(ends) > 10.0 * min(ends):
        left.set_xscale("log")
        left.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        left.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        left.minorticks_off()
    left.set(xlabel=f"{measure.title} (95 % interval)")
    right.set(xlabel="images")
    for axes in (left, right):
        axes.grid(alpha=0.25, axis="x")
    left.set_title("green: decided; orange: open; grey: beaten", fontsize=9)
    return png(figure)


def _best(
    rows: Mapping[int, CellRow], outcome: Outcome, by_status: Mapping[str, list[int]], sure: str
) -> str:
    leader = outcome.leader
    if leader is None:
        return "No cell has a score."
    lowest = f"{cell_name(rows[leader])} ({_score(rows[leader], outcome)})"
    if outcome.decided:
        return f"The best cell is {lowest}, of {len(rows)}, with {sure}."
    open_ = [i for i in by_status.get("open", []) if i != leader]
    others = "1 other cell" if len(open_) == 1 else f"{len(open_)} other cells"
    return (
        f"Not decided: {lowest} has the {outcome.measure.extreme} {outcome.measure.title}, and "
        f"{others} cannot be told from it: {_names(rows, open_)}. Beaten, with {sure}: "
        f"{len(by_status.get('beaten', []))}."
    )


def _front(
    rows: Mapping[int, CellRow], outcome: Outcome, by_status: Mapping[str, list[int]], sure: str
) -> str:
    front, open_ = by_status.get("front", []), by_status.get("open", [])
    said = (
        f"On the Pareto front of {outcome.measure.title} against network calls, with {sure}: "
        f"{_names(rows, front) if front else 'no cell'}."
    )
    if not open_:
        return f"{said} Every other cell is beaten by one that costs no more."
    return f"{said} Not decided: {_names(rows, open_)}."


def _why(rows: Mapping[int, CellRow], open_: Sequence[int], outcome: Outcome, rules: Rules) -> str:
    """Why a race ended undecided, and what would decide it."""
    if min((outcome.rulings[i].n_images for i in open_), default=0) < rules.most:
        return " The budget is spent."
    more = ""
    if rules.goal == "best":
        more = settled(rank([rows[i] for i in open_], outcome.measure), "; ")
    return f" Each open cell has its {rules.most} images{more or '; more n_images may decide'}."


def cost_sentence(rows: Mapping[int, CellRow], outcome: Outcome, rules: Rules) -> str:
    """Says what a race cost, beside the full grid, and why it ended undecided if it did."""
    calls = sum(row.n_images * row.nfe for row in rows.values())
    full = sum(rules.most * row.nfe for row in rows.values())
    share = 100 * outcome.images / outcome.images_full
    looks, all_looks = outcome.rounds
    open_ = [i for i in rows if outcome.rulings[i].status == "open"]
    why = "" if outcome.decided else _why(rows, open_, outcome, rules)
    return (
        f"It took {outcome.images:,} images in {looks} of {_rounds(all_looks)}, {share:.0f} % of "
        f"the {outcome.images_full:,} of the full grid, and {100 * calls / full:.0f} % of its "
        f"network calls; {outcome.images_full - outcome.images:,} images were saved.{why}"
    )


def _rounds(n: int) -> str:
    return f"{n} round{'s' if n != 1 else ''}"


def basis_sentence(measure: Measure) -> str:
    """Says what cells of a race were compared by."""
    if measure.corrected:
        return (
            "Cells were compared by FID_inf, at equal N in every round. FID at N is shown beside "
            "it; cells of different N do not compare by FID."
        )
    if measure.unbiased:
        return (
            "Cells were compared by FID at equal N in every round, since there are too few images "
            "for FID_inf: an order that changes with N would not be seen."
        )
    return (
        f"Cells were compared by {measure.title}, at equal N in every round: a mean over images, "
        "which no number of them biases."
    )


def _score(row: CellRow, outcome: Outcome) -> str:
    value, low, high = _value(row, outcome.measure)
    text = with_interval(value, low, high, outcome.measure.digits)
    return f"{outcome.measure.title} {text}, N = {row.n_images}"


def _value(row: CellRow, measure: Measure) -> tuple[float, float | None, float | None]:
    """What cells are compared by, with its interval; of a cell that was stopped before it had one,
    its FID."""
    shown = measure if measure.is_known(row) else FID
    return shown.value(row), *shown.bounds(row)


def _names(rows: Mapping[int, CellRow], places: Sequence[int]) -> str:
    return "; ".join(cell_name(rows[i]) for i in places)
