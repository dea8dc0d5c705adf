"""The pictures of a verdict, as PNG bytes: differences, the Pareto front, and the course of FID."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from ddim_core.decisions.row import CellRow, cell_name
from ddim_core.decisions.verdict import Verdict, pareto
from ddim_core.reports.grid_figures import COLOURS, MARKERS, key, png, spread
from ddim_core.reports.grid_sentences import lines

BY_CALL = {"better": "#3a7d44", "worse": "#b23a48", "tied": "#51606f", "untested": "#51606f"}


def difference_plot(verdict: Verdict) -> bytes:
    """Draws each cell's difference of FID with its 95 % interval; left of 0 is better."""
    cells = verdict.cells
    figure = Figure(figsize=(7.2, 1.1 + 0.27 * len(cells)))
    axes = figure.subplots()
    for i, cell in enumerate(cells):
        colour = BY_CALL[cell.call]
        value = cell.new.fid - cell.baseline.fid
        if cell.low is not None and cell.high is not None:
            axes.hlines(i, cell.low, cell.high, color=colour, lw=2)
        chosen = verdict.point is not None and cell.name == verdict.point.name
        axes.plot(value, i, "D" if chosen else "o", color=colour, ms=7 if chosen else 5)
    axes.axvline(0, color="black", lw=1)
    if verdict.margin:
        axes.axvspan(-verdict.margin, verdict.margin, color="black", alpha=0.08, lw=0)
    axes.set_yticks(range(len(cells)), [cell.name for cell in cells], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("FID of the new checkpoint minus FID of the other, 95 % paired interval")
    axes.set_title("better < 0 < worse; diamond: operating point; grey: tied", fontsize=9)
    axes.grid(axis="x", alpha=0.25)
    return png(figure)


def pareto_plot(rows: Sequence[CellRow]) -> bytes:
    """Draws FID against network calls per image, all cells, and the front that none beats."""
    figure = Figure(figsize=(7.2, 4.0))
    axes = figure.subplots()
    grouped = lines(rows)
    for i, (name, line) in enumerate(grouped.items()):
        axes.plot([r.nfe for r in line], [r.fid for r in line], MARKERS[i // len(COLOURS) % 4],
                  ms=4, color=COLOURS[i % len(COLOURS)], label=name)  # fmt: skip
        axes.plot([r.nfe for r in line], [r.fid for r in line], "-", lw=0.6, alpha=0.6,
                  color=COLOURS[i % len(COLOURS)])  # fmt: skip
    front = pareto(rows)
    calls, fids = [r.nfe for r in front], [r.fid for r in front]
    axes.step(calls, fids, where="post", color="black", lw=1, label="Pareto front")
    low = [max(row.fid_low, 1e-3) for row in front if row.fid_low is not None]
    high = [row.fid_high for row in front if row.fid_high is not None]
    if len(low) == len(high) == len(front):
        axes.vlines(calls, low, high, color="black", lw=1)
    axes.set(xscale="log", yscale="log", xlabel="network calls an image", ylabel="FID")
    numbers = spread(sorted({row.nfe for row in rows}))
    axes.set_xticks(numbers, [str(n) for n in numbers])
    _plain_fid(axes)
    key(axes)
    return png(figure)


def checkpoint_curve(history: Sequence[Sequence[CellRow]], cells: Sequence[str]) -> bytes:
    """Draws FID with its 95 % band over checkpoints, a curve for each chosen cell.

    Over training steps where each checkpoint has one of its own, else in their order.

    Args:
        history: Each checkpoint's rows, in order (`verdict_reading.by_checkpoint`).
        cells: Names of the cells to draw (`reading.cell_name`).
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
            if cell_name(row) == name
        ]
        x = [at for at, _ in found]
        axes.plot(x, [row.fid for _, row in found], "o-", ms=4, color=colour, label=name)
        bounded = [(at, row) for at, row in found if row.fid_low is not None]
        bars = [at for at, _ in bounded]
        low = [max(row.fid_low or 0.0, 1e-3) for _, row in bounded]
        high = [row.fid_high or 0.0 for _, row in bounded]
        axes.fill_between(bars, low, high, color=colour, alpha=0.15, lw=0)
        axes.vlines(bars, low, high, color=colour, alpha=0.5)
    axes.set(yscale="log", ylabel="FID (95 % interval)")
    if stepped:
        axes.set_xlabel("training step")
    else:
        names = [rows[0].checkpoint for rows in history]
        axes.set_xticks(positions, names, rotation=30, ha="right", fontsize=8, parse_math=False)
    _plain_fid(axes)
    axes.legend(fontsize=8)
    return png(figure)


def _plain_fid(axes: Any) -> None:
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.25)
