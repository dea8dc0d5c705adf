"""The pictures of a points report, as PNG and GIF bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray
from PIL import Image

from ddim_core.decisions.row import line_name
from ddim_core.diffusion.schedule import CLEAN
from ddim_core.points.row import PointRow
from ddim_core.points.score import PointSetting
from ddim_core.reports.grid_sentences import lines

Points = NDArray[np.float32]

DOTS_PER_INCH = 110
TRUE, GENERATED = "#f0a35e", "#0b3c5d"
COLOURS = ("#0b3c5d", "#d9792b", "#3a7d44", "#b23a48", "#6b4e9b", "#328cc1", "#7f7f7f")
HALF_WIDTH = 4.6
"""Data of standard deviation 2 and pure noise both lie within."""

FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 80, 2500


class PlainNumbers(LogFormatter):
    """Writes 0.6 instead of 6e-01 up a logarithmic axis."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def forward_noising(noisy: Mapping[int, Points]) -> bytes:
    """Draws true points as they are drowned in noise, by timestep; -1 is clean data."""
    figure = Figure(figsize=(2.0 * len(noisy), 2.3))
    panels = figure.subplots(1, len(noisy), squeeze=False)[0]
    for axes, (t, points) in zip(panels, noisy.items(), strict=True):
        _cloud(axes, points, _when(t))
    return _png(figure)


def reverse_process(x: Mapping[int, Points], x0_hat: Mapping[int, Points], about: str) -> bytes:
    """Draws the points at several noise levels of sampling, and what they are predicted to be.

    Args:
        x: Points [n, 2] by their timestep, noisiest first.
        x0_hat: The clean points predicted from each.
        about: The sampler setting, for the title.
    """
    figure = Figure(figsize=(2.0 * len(x), 4.4), layout="constrained")
    above, below = figure.subplots(2, len(x), squeeze=False)
    for axes, (t, points) in zip(above, x.items(), strict=True):
        _cloud(axes, points, _when(t))
    for axes, points in zip(below, x0_hat.values(), strict=True):
        _cloud(axes, points, "", colour=COLOURS[1])
    above[0].set_ylabel("x_t")
    below[0].set_ylabel("predicted x0")
    figure.suptitle(f"Reverse process, {about}", fontsize=10)
    return _png(figure)


def animation(x: Sequence[Points], t: Sequence[int], truth: Points, about: str) -> bytes:
    """Draws the reverse process as a GIF that stays on its last frame for a while, and repeats.

    Args:
        x: Points [n, 2] of each frame.
        t: The timestep each frame lies at; -1 is clean data.
        truth: True points [m, 2], behind the last frame.
        about: The sampler setting.
    """
    figure = Figure(figsize=(3.6, 3.8), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.9)
    frames = []
    for points, when in zip(x, t, strict=True):
        axes.clear()
        if when == CLEAN:
            _dots(axes, truth, TRUE, 8.0)
        _cloud(axes, points, f"{about}, {_when(when)}")
        canvas.draw()
        rgba = Image.fromarray(np.asarray(canvas.buffer_rgba()))
        frames.append(rgba.convert("RGB").quantize(32))
    durations = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_FRAME_MILLISECONDS]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format="GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0
    )
    return buffer.getvalue()


def over_truth(generated: Sequence[tuple[PointRow, Points]], truth: Points) -> bytes:
    """Draws each setting's points over true ones: a line for each eta, a column for each S.

    Args:
        generated: Rows of the table, each with its points [n, 2].
        truth: True points [m, 2], in a lighter colour.
    """
    names = list(dict.fromkeys(line_name(row) for row, _ in generated))
    steps = sorted({row.steps for row, _ in generated})
    figure = Figure(figsize=(2.4 * len(steps), 2.5 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), len(steps), squeeze=False)
    for row, points in generated:
        axes = panels[names.index(line_name(row))][steps.index(row.steps)]
        _dots(axes, truth, TRUE, 6.0)
        _cloud(axes, points, f"S = {row.steps}: Chamfer {row.chamfer_each[0]:.2f}", size=0.8)
    for axes, name in zip(panels[:, 0], names, strict=True):
        axes.set_ylabel(name)
    return _png(figure)


def chamfer_curves(settings: Sequence[PointSetting], floor: PointRow, title: str) -> bytes:
    """Draws the Chamfer distance against S for each eta, with 95 % intervals, and the floor.

    Args:
        settings: See `summary`.
        floor: A row, for its floor.
        title: The protocol.
    """
    figure = Figure(figsize=(7.2, 4.4))
    axes = figure.subplots()
    for i, (name, line) in enumerate(lines(settings).items()):
        colour = COLOURS[i % len(COLOURS)]
        steps = [record.steps for record in line]
        axes.plot(steps, [record.chamfer for record in line], "o-", ms=4, color=colour, label=name)
        # A lower end at 0 has no place on a logarithmic axis; it lies below the picture.
        sure = [
            (record.steps, max(record.chamfer_low, 0.1 * floor.floor), record.chamfer_high)
            for record in line
            if record.chamfer_low is not None and record.chamfer_high is not None
        ]
        at, low, high = np.array(sure, np.float64).reshape(-1, 3).T
        axes.fill_between(at, low, high, color=colour, alpha=0.2, lw=0)
    axes.axhline(floor.floor, color="black", lw=1, ls=":")
    if floor.floor_low is not None and floor.floor_high is not None:
        axes.axhspan(floor.floor_low, floor.floor_high, color="black", alpha=0.1, lw=0)
    axes.annotate(
        f"two true samples: {floor.floor:.2f}",
        (0.01, floor.floor),
        xycoords=("axes fraction", "data"),
        ha="left",
        va="top",
        fontsize=8,
    )
    axes.set(xscale="log", yscale="log", xlabel="steps S", ylabel="Chamfer distance (95 %)")
    axes.set_ylim(bottom=0.5 * floor.floor)
    all_steps = sorted({record.steps for record in settings})
    axes.set_xticks(all_steps, [str(s) for s in all_steps])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter(PlainNumbers())
    axes.yaxis.set_minor_formatter(PlainNumbers(minor_thresholds=(2.0, 0.5)))
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=9)
    return _png(figure)


def _cloud(
    axes: Axes, points: Points, title: str, colour: str = GENERATED, size: float = 2.0
) -> None:
    _dots(axes, points, colour, size)
    axes.set(xlim=(-HALF_WIDTH, HALF_WIDTH), ylim=(-HALF_WIDTH, HALF_WIDTH), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.set_title(title, fontsize=8.5)


def _dots(axes: Axes, points: Points, colour: str, size: float) -> None:
    axes.scatter(points[:, 0], points[:, 1], s=size, color=colour, lw=0)


def _when(t: int) -> str:
    return "clean" if t == CLEAN else f"t = {t}"


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return buffer.getvalue()
