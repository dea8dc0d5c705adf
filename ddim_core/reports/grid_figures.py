"""The pictures of a report, as PNG bytes; each takes rows of the table or images, and draws."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ticker import LogLocator, StrMethodFormatter
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow
from ddim_core.reports.grid_sentences import lines, mixed_clipping
from ddim_core.scores.cell_score import CellScore

DOTS_PER_INCH = 110
FEW_LINES, SHORT_NAME = 8, 32  # lines and letters that leave room for a legend in the figure
TILE = 56  # pixels of a picture in a contact sheet, about
MARKERS = ("o", "s", "^", "D")
COLOURS = ("#0b3c5d", "#328cc1", "#3a7d44", "#d9792b", "#b23a48", "#6b4e9b", "#7f7f7f")


def heat_map(rows: Sequence[CellRow]) -> bytes:
    """Draws FID over (S, line) on a logarithmic colour scale, each cell with its interval."""
    grouped = lines(rows)
    steps = sorted({row.steps for row in rows})
    values = np.full((len(grouped), len(steps)), np.nan)
    figure = Figure(figsize=(1.6 + 1.35 * len(steps), 1.2 + 0.62 * len(grouped)))
    axes = figure.subplots()
    for i, line in enumerate(grouped.values()):
        for row in line:
            values[i, steps.index(row.steps)] = max(row.fid, 1e-6)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    norm = LogNorm(low, max(high, low * 1.01))
    axes.imshow(values, cmap="viridis_r", norm=norm, aspect="auto")
    for i, line in enumerate(grouped.values()):
        for row in line:
            dark = norm(max(row.fid, 1e-6)) > 0.5
            axes.text(
                steps.index(row.steps), i, _cell_text(row, 2 if high < 10.0 else 1),
                ha="center", va="center", fontsize=8.5, color="white" if dark else "black",
            )  # fmt: skip
    axes.set_xticks(range(len(steps)), [f"S = {s}" for s in steps])
    axes.set_yticks(range(len(grouped)), list(grouped))
    axes.set_title(_protocol(rows), fontsize=9, parse_math=False)
    return png(figure)


def curves(rows: Sequence[CellRow], floor: CellScore | None, measure: Measure = FID) -> bytes:
    """Draws what decides against S for each line with its 95 % band, and what as many real images
    score."""
    figure = Figure(figsize=(7.2, 4.4))
    axes = figure.subplots()
    for i, (name, line) in enumerate(lines(rows).items()):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]
        steps = [row.steps for row in line]
        axes.plot(
            steps,
            [measure.value(row) for row in line],
            f"{marker}-",
            ms=4,
            color=colour,
            label=name,
        )
        low, high = measure.ends(line)
        if len(low) == len(line):
            axes.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
            if len(steps) == 1:  # a band has no width there
                axes.vlines(steps, low, high, color=colour, alpha=0.5)
    as_many = floor and floor.n_images == rows[0].n_images  # else the bias of N differs
    if floor and as_many and measure == FID:
        axes.axhline(floor.fid, color="black", lw=1, ls=":")
        text = f"held-out real images, N = {floor.n_images}: {floor.fid:.1f}"
        axes.annotate(text, (1, floor.fid), xycoords=("axes fraction", "data"),
                      ha="right", va="bottom", fontsize=8)  # fmt: skip
    axes.set(xscale="log", xlabel="steps S", ylabel=f"{measure.title} (95 % band)")
    all_steps = sorted({row.steps for row in rows})
    axes.set_xticks(all_steps, [str(s) for s in all_steps])
    plain(axes, measure)
    key(axes)
    axes.set_title(_protocol(rows, measure), fontsize=9, parse_math=False)
    return png(figure)


def strip(images: NDArray[np.uint8], side: int = TILE) -> bytes:
    """Draws images as a PNG, three side by side: small ones by whole pixels, larger ones made
    smaller.

    Args:
        images: uint8 [n, height, width, channels].
        side: Pixels a side, about.
    """
    n, height, width, channels = images.shape
    columns = min(n, 3)  # MLflow's table shows it in a square
    rows = -(-n // columns)
    tiles = np.full((rows * columns, height + 1, width + 1, channels), 255, np.uint8)
    tiles[:n, :height, :width] = images  # a pixel between them
    block = tiles.reshape(rows, columns, height + 1, width + 1, channels).transpose(0, 2, 1, 3, 4)
    block = block.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    picture = Image.fromarray(block.squeeze(-1) if channels == 1 else block)
    scale = max(1, round(side / height)) if height <= side else side / height
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    sized = picture.resize((round(picture.width * scale), round(picture.height * scale)), how)
    buffer = io.BytesIO()
    sized.save(buffer, format="png")
    return buffer.getvalue()


def contact_sheet(images: Mapping[str, NDArray[np.uint8]]) -> bytes:
    """Draws one line of images for each cell; down a column all start from the same x_T.

    Args:
        images: uint8 [n, height, width, channels] by the cell's name, n equal in all.
    """
    height, width, _ = next(iter(images.values())).shape[1:]
    zoom = max(1, round(TILE / height))
    gap = max(1, TILE // 12)
    step_y, step_x = height * zoom + gap, width * zoom + gap
    n_columns = max(len(batch) for batch in images.values())
    sheet = np.full((step_y * len(images), step_x * n_columns, 3), 255, np.uint8)
    for line, batch in enumerate(images.values()):
        for column, image in enumerate(batch.repeat(zoom, axis=1).repeat(zoom, axis=2)):
            top, left = line * step_y, column * step_x
            sheet[top : top + step_y - gap, left : left + step_x - gap] = image
    names = [" ".join(name.split()) for name in images]
    font = ImageFont.truetype(findfont("DejaVu Sans"), TILE // 5)
    margin = round(max(map(font.getlength, names))) + 2 * gap
    page = Image.new("RGB", (margin + sheet.shape[1], sheet.shape[0]), "white")
    page.paste(Image.fromarray(sheet), (margin, 0))
    for line, name in enumerate(names):
        middle = line * step_y + (step_y - gap) // 2
        ImageDraw.Draw(page).text((margin - gap, middle), name, "black", font, anchor="rm")
    buffer = io.BytesIO()
    page.save(buffer, format="png")
    return buffer.getvalue()


def _cell_text(row: CellRow, digits: int) -> str:
    if row.fid_low is None or row.fid_high is None:
        return f"{row.fid:.{digits}f}"
    return f"{row.fid:.{digits}f}\n[{row.fid_low:.{digits}f}, {row.fid_high:.{digits}f}]"


def _protocol(rows: Sequence[CellRow], measure: Measure = FID) -> str:
    row = rows[0]
    return (
        f"{measure.title} of {row.checkpoint} against {row.dataset} {row.split}; N = {row.n_images}"
        f" a cell, {row.n_reference or 'unknown'} real, {row.extractor} features, 95 % intervals"
        + clipping_key(rows)
    )


def clipping_key(rows: Sequence[CellRow]) -> str:
    """A line below a figure's title that says what (clips) means, where some lines do it."""
    said = "\n(clips): each predicted x0 is clipped to [-1, 1]; on the other lines it is not"
    return said if mixed_clipping(rows) else ""


def spread(numbers: Sequence[int]) -> list[int]:
    """Those of rising numbers that have room beside each other on a logarithmic axis."""
    shown: list[int] = []
    for number in numbers:
        if not shown or number >= 1.12 * shown[-1]:
            shown.append(number)
    return shown


def plain(axes: Any, measure: Measure) -> None:
    """Gives an axis of values plain numbers, on a logarithmic scale where they are distances."""
    if measure.lower_is_better:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.25)


def key(axes: Any) -> None:
    """Draws a figure's legend: within it, or beside it where it would cover the lines."""
    names = axes.get_legend_handles_labels()[1]
    if len(names) <= FEW_LINES and max(map(len, names), default=0) <= SHORT_NAME:
        axes.legend(fontsize=8)
    else:
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def png(figure: Figure) -> bytes:
    """Renders a figure."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return buffer.getvalue()
