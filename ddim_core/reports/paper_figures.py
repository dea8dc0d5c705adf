"""The pictures of a paper report, as PNG bytes; ours stand beside the paper's, never over them
where they do not compare."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from ddim_core.decisions.row import CellRow, line_name
from ddim_core.diffusion.reconstruction import MeanError
from ddim_core.reports.grid_figures import COLOURS, DOTS_PER_INCH, clipping_key, contact_sheet
from ddim_core.reports.grid_sentences import lines
from ddim_core.reports.paper_sentences import (
    RECONSTRUCTION,
    SOURCE,
    TABLE_1_SETTING,
    TABLE_2_SETTING,
    PaperCell,
    table_1,
)

Images = NDArray[np.uint8]
OURS, PAPERS = COLOURS[0], COLOURS[3]


def table_1_figure(rows: Sequence[CellRow]) -> bytes:
    """Draws FID against S on two panels: ours with 95 % bands, and the paper's table 1.

    The panels have axes of their own: another model, data set, count and extractor.
    """
    figure = Figure(figsize=(10.4, 4.3), layout="constrained")
    ours, papers = figure.subplots(1, 2)
    published = table_1()
    names = dict.fromkeys([*lines(rows), *lines(published)])
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    _fid_lines(ours, rows, colours)
    _fid_lines(papers, published, colours)
    first = rows[0]
    ours.set_title(
        f"ours: {first.checkpoint} on {first.dataset} {first.resolution}x"
        f"{first.resolution},\n{first.extractor} features, N = {first.n_images}, "
        "95 % bands" + clipping_key(rows),
        fontsize=9, parse_math=False,
    )  # fmt: skip
    papers.set_title(f"another model and data: {SOURCE},\n{TABLE_1_SETTING}", fontsize=9)
    ours.set_ylabel("FID")
    for panel in (ours, papers):  # the lines of one need not be those of the other
        panel.legend(fontsize=8)
    return _png(figure)


def table_2_figure(errors: Mapping[int, MeanError], about: str) -> bytes:
    """Draws the reconstruction error against S, ours and the paper's table 2.

    Args:
        errors: By S.
        about: Our model, data set and number of images.
    """
    figure = Figure(figsize=(7.2, 4.3), layout="constrained")
    axes = figure.subplots()
    steps = sorted(errors)
    means = [errors[s].mean for s in steps]
    named = about.replace("$", r"\$")  # a name, not a formula
    axes.plot(steps, means, "o-", ms=4, color=OURS, label=f"ours: {named}, 95 % band")
    sure = [s for s in steps if errors[s].low is not None]
    # A lower end at 0 has no place on a logarithmic axis; it lies below the picture.
    low = [max(errors[s].low or 0.0, 1e-2 * errors[s].mean) for s in sure]
    high = [errors[s].high or 0.0 for s in sure]
    axes.fill_between(sure, low, high, color=OURS, alpha=0.2, lw=0)
    axes.plot(
        list(RECONSTRUCTION), list(RECONSTRUCTION.values()), "s--", ms=4, color=PAPERS,
        label=f"another model and data: {TABLE_2_SETTING}, {SOURCE}",
    )  # fmt: skip
    _log_axes(axes, sorted({*steps, *RECONSTRUCTION}))
    axes.set_ylabel("squared error per dimension, pixels in [0, 1]")
    axes.legend(fontsize=8)
    axes.set_title("Encoded and decoded with the same S", fontsize=9)
    return _png(figure)


def cost_figure(rows: Sequence[CellRow]) -> bytes:
    """Draws a worker's seconds for 1000 images against S, with the line of equal cost a step."""
    figure = Figure(figsize=(7.2, 4.3), layout="constrained")
    axes = figure.subplots()
    for i, (name, line) in enumerate(lines(rows).items()):
        seconds = [1000.0 * row.sample_seconds / row.n_images for row in line]
        steps = [row.steps for row in line]
        axes.plot(steps, seconds, "o", ms=5, alpha=0.8, color=COLOURS[i % len(COLOURS)], label=name)
    per_step = float(np.median([1000.0 * r.sample_seconds / r.n_images / r.nfe for r in rows]))
    all_steps = sorted({row.steps for row in rows})
    axes.plot(
        all_steps, [per_step * s for s in all_steps], color="black", lw=1, ls=":",
        label=f"{per_step:.2g} s a step of 1000 images, the median",
    )  # fmt: skip
    _log_axes(axes, all_steps)
    _plain_numbers(axes)
    axes.set_ylabel("seconds of a busy worker for 1000 images")
    axes.legend(fontsize=8)
    axes.set_title(
        f"Cost of sampling on {rows[0].device}, by the clock of one worker among others",
        fontsize=9,
    )
    return _png(figure)


def samples_sheet(images: Sequence[tuple[CellRow, Images]]) -> bytes:
    """Draws samples of some cells, a line each; down a column all start from one x_T."""
    return contact_sheet({f"S = {row.steps}, {line_name(row)}": x for row, x in images})


def consistency_sheet(images: Mapping[int, Images]) -> bytes:
    """Draws what one x_T becomes at several S (down), for several x_T (across), eta 0."""
    return contact_sheet({f"S = {steps}": batch for steps, batch in images.items()})


def x0_sheet(t: Sequence[int], x0_hat: Images) -> bytes:
    """Draws the x0 predicted at timesteps t [k] (down) for several images (across).

    Args:
        t: Timesteps, noisiest first.
        x0_hat: uint8 [k, n, height, width, channels].
    """
    return contact_sheet({f"t = {when}": x for when, x in zip(t, x0_hat, strict=True)})


def reconstruction_sheet(originals: Images, decoded: Mapping[int, Images]) -> bytes:
    """Draws real images over what comes back of them at several S."""
    return contact_sheet({"real": originals, **{f"S = {s}": x for s, x in decoded.items()}})


def line_sheet(images: Images) -> bytes:
    """Draws interpolations, one line each: uint8 [lines, n, height, width, channels]."""
    return contact_sheet({f"line {i + 1}": batch for i, batch in enumerate(images)})


def grid_sheet(images: Images) -> bytes:
    """Draws the grid between four corners: uint8 [n, n, height, width, channels]."""
    n = len(images)
    return contact_sheet({f"{i / (n - 1):.2f}": batch for i, batch in enumerate(images)})


def _fid_lines(axes: Axes, rows: Sequence[CellRow | PaperCell], colours: Mapping[str, str]) -> None:
    for name, line in lines(rows).items():
        steps = [row.steps for row in line]
        axes.plot(steps, [row.fid for row in line], "o-", ms=4, color=colours[name], label=name)
        sure = [row for row in line if row.fid_low is not None]
        low = [max(row.fid_low or 0.0, 1e-2 * row.fid) for row in sure]
        high = [row.fid_high or 0.0 for row in sure]
        axes.fill_between(
            [row.steps for row in sure], low, high, color=colours[name], alpha=0.2, lw=0
        )
    _log_axes(axes, sorted({row.steps for row in rows}))
    _plain_numbers(axes)


def _plain_numbers(axes: Axes) -> None:
    """Writes 6 instead of 6 x 10^0 up the axis; numbers between powers only where few fit."""
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.0, 0.4)))


def _log_axes(axes: Axes, steps: Sequence[int]) -> None:
    axes.set(xscale="log", yscale="log", xlabel="steps S")
    axes.set_xticks(steps, [str(s) for s in steps])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.25)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return buffer.getvalue()
