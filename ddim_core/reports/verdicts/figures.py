"""Pictures as PNG bytes: the Pareto front, and the course of FID over checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ddim_core.decisions.checkpoints.verdict import pareto
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.reports.grid_figures import COLOURS, MARKERS, key, plain, png, spread
from ddim_core.reports.grid_sentences import lines


def pareto_plot(rows: Sequence[CellRow], measure: Measure = FID) -> bytes:
    """Draws what decides against network calls per image, all cells, and the front that none
    beats."""
    figure = Figure(figsize=(7.2, 4.0))
    axes = figure.subplots()
    grouped = lines(rows)
    for i, (name, line) in enumerate(grouped.items()):
        calls, values = [r.nfe for r in line], [measure.value(r) for r in line]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(calls, values, MARKERS[i // len(COLOURS) % 4], ms=4, color=colour, label=name)
        axes.plot(calls, values, "-", lw=0.6, alpha=0.6, color=colour)
    front = pareto(rows, measure)
    calls, values = [r.nfe for r in front], [measure.value(r) for r in front]
    axes.step(calls, values, where="post", color="black", lw=1, label="Pareto front")
    low, high = measure.ends(front)
    if len(low) == len(front):
        axes.vlines(calls, low, high, color="black", lw=1)
    axes.set(xscale="log", xlabel="network calls an image", ylabel=measure.title)
    numbers = spread(sorted({row.nfe for row in rows}))
    axes.set_xticks(numbers, [str(n) for n in numbers])
    plain(axes, measure)
    key(axes)
    return png(figure)


def checkpoint_curve(
    history: Sequence[Sequence[CellRow]],
    cells: Sequence[str],
    measure: Measure = FID,
    at_best: Sequence[tuple[float, float, float]] = (),
) -> bytes:
    """Draws what decides with its 95 % band over checkpoints, a curve for each chosen cell.

    Over training steps where each checkpoint has one of its own, else in their order.

    Args:
        history: Each checkpoint's rows, in order (`verdict_sentences.by_checkpoint`).
        cells: Names of the cells to draw (`row.cell_name`).
        measure: What is drawn; checkpoints without it are left out.
        at_best: Of each checkpoint its value at its own best setting, and the interval of that: a
            curve of its own.
    """
    steps = [rows[0].training_step for rows in history]
    known = [step for step in steps if step is not None]
    stepped = len(set(known)) == len(steps)
    positions = known if stepped else list(range(len(history)))
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.subplots()
    for i, name in enumerate(cells):
        colour = COLOURS[i % len(COLOURS)]
        found = [
            (x, row)
            for x, rows in zip(positions, history, strict=True)
            for row in rows
            if cell_name(row) == name and measure.is_known(row)
        ]
        x = [at for at, _ in found]
        axes.plot(x, [measure.value(row) for _, row in found], "o-", ms=4, color=colour, label=name)
        bars = [at for at, row in found if measure.bounds(row)[0] is not None]
        low, high = measure.ends([row for _, row in found])
        axes.fill_between(bars, low, high, color=colour, alpha=0.15, lw=0)
        axes.vlines(bars, low, high, color=colour, alpha=0.5)
    if at_best:
        values, lows, highs = zip(*at_best, strict=True)
        label = "each at its own best setting (intervals together)"
        axes.plot(positions, values, "D-", ms=5, color="black", label=label)
        axes.vlines(positions, lows, highs, color="black")
    axes.set_ylabel(f"{measure.title} (95 % interval)")
    if stepped:
        axes.set_xlabel("training step")
    else:
        names = [rows[0].checkpoint for rows in history]
        axes.set_xticks(positions, names, rotation=30, ha="right", fontsize=8, parse_math=False)
    plain(axes, measure)
    axes.legend(fontsize=8)
    return png(figure)
