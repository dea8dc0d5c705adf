"""Charts of a page as the plain JSON that its scripts draw: points with intervals, in lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from ddim_core.common.foreign import Json
from ddim_core.decisions.checkpoints.twins import NoiseAt, reach_at
from ddim_core.decisions.checkpoints.verdict import Verdict, pareto
from ddim_core.decisions.measure import Measure
from ddim_core.decisions.row import CellRow, cell_name, line_name, with_interval

NETWORK_CALLS = "network calls an image"
AT_BEST = "each at its own best setting"


@dataclass(frozen=True)
class Point:
    """A point of a chart.

    Attributes:
        line: Name of the line that it belongs to.
        x, y: Where it lies.
        low, high: Its 95 % interval; None without one.
        note: What is said when it is pointed at; lines of text.
        at: Its x in words.
    """

    line: str
    x: float
    y: float
    low: float | None
    high: float | None
    note: str
    at: str


@dataclass(frozen=True)
class Band:
    """How far something may lie about a line at a place."""

    line: str
    x: float
    low: float
    high: float


def lines(
    title: str,
    x: str,
    y: str,
    points: Iterable[Point],
    *,
    log_x: bool = False,
    log_y: bool = False,
    ticks: Sequence[tuple[float, str]] | None = None,
    front: Sequence[Point] | None = None,
    rule: tuple[float, str] | None = None,
    bare: Sequence[str] = (),
    bands: Sequence[Band] = (),
) -> Json:
    """Returns a chart of lines.

    Args:
        title: For those who do not see it.
        x, y: What stands along the axes, with units.
        points: Those of a line in order of x.
        log_x, log_y: The axes as they are at first; a value not above 0 makes its axis linear.
        ticks: Places and texts along x, where x is no number to people.
        front: Points that a dashed line joins.
        rule: A height and what it is.
        bare: Lines without dots, of many points.
        bands: What lies about a line besides its points' intervals, in order of x.
    """
    told = list(points)
    return {
        "title": title, "x": x, "y": y, "points": [asdict(point) for point in told],
        "log_x": log_x and all(point.x > 0 for point in told),
        "log_y": log_y and all(point.y > 0 for point in told),
        "ticks": ticks, "ticks_only": ticks is not None,
        "front": front and [asdict(point) for point in front],
        "rule": rule and {"y": rule[0], "text": rule[1]},
        "bare": list(bare), "bands": [asdict(band) for band in bands],
    }  # fmt: skip


def over_calls(rows: Sequence[CellRow], measure: Measure) -> Json:
    """Returns what decides over network calls, with the Pareto front."""
    ordered = sorted(rows, key=lambda row: (line_name(row), row.nfe))
    return lines(
        f"{measure.title} over {NETWORK_CALLS}", NETWORK_CALLS, measure.title,
        [_at_calls(row, measure) for row in ordered],
        log_x=True, log_y=measure.lower_is_better,
        front=[_at_calls(row, measure) for row in pareto(rows, measure)],
    )  # fmt: skip


def _at_calls(row: CellRow, measure: Measure) -> Point:
    note = f"{cell_name(row)}\n{measure.title} {measure.shown(row)}\nN = {row.n_images} images, "
    return Point(
        line_name(row), row.nfe, measure.value(row), *measure.bounds(row),
        f"{note}{row.nfe} {NETWORK_CALLS}", f"{row.nfe} calls",
    )  # fmt: skip


def over_steps(
    title: str,
    y: str,
    scored: Iterable[tuple[str, int, float, float | None, float | None]],
    rule: tuple[float, str] | None = None,
) -> Json:
    """Returns a distance over S.

    Args:
        title, y: As of `lines`.
        scored: Line, S, value and its 95 % interval.
        rule: As of `lines`.
    """
    points = [
        Point(line, steps, value, low, high,
              f"S = {steps}, {line}\n{y} {_digits(value, low, high)}", f"S = {steps}")
        for line, steps, value, low, high in sorted(scored, key=lambda one: one[:2])
    ]  # fmt: skip
    return lines(title, "steps S", y, points, log_x=True, log_y=True, rule=rule)


def _digits(value: float, low: float | None, high: float | None) -> str:
    """Three digits of a value and of its interval's ends."""
    return f"{value:.3g}" if low is None or high is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def over_checkpoints(
    history: Sequence[Sequence[CellRow]],
    cells: Sequence[str],
    measure: Measure,
    at_best: Sequence[tuple[str, float, float | None, float | None]] = (),
    noise: Mapping[str, Sequence[NoiseAt]] | None = None,
) -> Json:
    """Returns what decides over checkpoints, a line for each of some cells: over training steps
    where each checkpoint has one of its own, else in their order. With noise always over training
    steps, where checkpoints say theirs.

    Args:
        history: Each checkpoint's rows, in order.
        cells: Names of the cells.
        measure: Checkpoints without it are left out.
        at_best: Of each checkpoint what is said, the value and its interval, at its own best cell.
        noise: Of the recipe's trainings, by cell: a band about the mean of each place.
    """
    steps = [rows[0].training_step for rows in history]
    stepped = None not in steps and (bool(noise) or len(set(steps)) == len(steps))
    places = [step if stepped and step is not None else i for i, step in enumerate(steps)]
    points = [
        Point(AT_BEST, place, value, low, high, note,
              f"step {place}" if stepped else rows[0].checkpoint)
        for place, rows, (note, value, low, high) in zip(places, history, at_best, strict=False)
    ]  # fmt: skip
    points += [
        Point(
            name, place, measure.value(row), *measure.bounds(row),
            f"{row.checkpoint}\n{name}\n{measure.title} {measure.shown(row)}\n"
            f"N = {row.n_images} images",
            f"step {place}" if stepped else row.checkpoint,
        )
        for name in cells
        for place, rows in zip(places, history, strict=True)
        for row in rows
        if cell_name(row) == name and measure.is_known(row)
    ]  # fmt: skip
    ticks = [(place, rows[0].checkpoint) for place, rows in zip(places, history, strict=True)]
    return lines(
        f"{measure.title} over checkpoints", "training step" if stepped else "checkpoint",
        measure.title, points, log_y=measure.lower_is_better, ticks=None if stepped else ticks,
        bands=[band for name, found in (noise or {}).items()
               for band in _noise_bands([p for p in points if p.line == name], found, stepped)],
    )  # fmt: skip


def _noise_bands(
    points: Sequence[Point], noise: Sequence[NoiseAt], stepped: bool
) -> Iterable[Band]:
    at: dict[float, list[Point]] = {}
    for point in points:
        at.setdefault(point.x, []).append(point)
    for x, alike in at.items():
        mean, reach = fmean(p.y for p in alike), reach_at(noise, x if stepped else None)
        yield Band(alike[0].line, x, mean - reach, mean + reach)


def differences(verdict: Verdict) -> Json:
    """Returns each cell's difference of two checkpoints, with its interval."""
    measure, point = verdict.measure, verdict.point
    rows = []
    for cell in verdict.cells:
        value = measure.value(cell.new) - measure.value(cell.baseline)
        shown = with_interval(value, cell.low, cell.high, measure.digits)
        rows.append({
            "name": cell.name, "value": value, "low": cell.low, "high": cell.high,
            "call": cell.call, "reach": cell.reach, "note": f"{cell.name}: {cell.call}\n{shown}",
            "chosen": point is not None and cell.name == point.name,
        })  # fmt: skip
    better = "below" if measure.lower_is_better else "above"
    return {
        "title": f"Difference of {measure.title} in every cell",
        "x": f"{measure.title} of the new checkpoint minus that of the other, with 95 % paired "
        f"intervals; {better} 0: better",
        "rows": rows,
        "margin": verdict.margin,
    }
