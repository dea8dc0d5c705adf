"""The pictures of a LoRA's report, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.reports.lora_sentences import by_role

Images = NDArray[np.uint8]
DOTS_PER_INCH = 110
COLOURS = {"held-out": "#0b3c5d", "trained": "#d9792b", "instance": "#b23a48",
           "class": "#3a7d44", "other": "#6b4e9b",
           "given": "#0b3c5d"}  # fmt: skip
PANELS = 4  # side by side
TILE = 64  # pixels of a picture, about
LABELLED = 96  # the same below a label
WINDOW = 25  # steps of a running mean


def picture_rows(rows: Mapping[str, Images], labels: Sequence[str] = ()) -> bytes:
    """Draws rows of pictures of one size beside their names; `labels` stand above the columns."""
    height, width, _ = next(iter(rows.values())).shape[1:]
    tile = LABELLED if labels else TILE
    zoom = max(1, round(tile / height))
    gap = tile // 16
    step_y, step_x = height * zoom + gap, width * zoom + gap
    n = max(len(images) for images in rows.values())
    # All pictures in one array: a plot of its own for each takes ten times as long.
    sheet = np.full((step_y * len(rows), step_x * n, 3), 255, np.uint8)
    for line, images in enumerate(rows.values()):
        for column, image in enumerate(images.repeat(zoom, axis=1).repeat(zoom, axis=2)):
            top, left = line * step_y, column * step_x
            sheet[top : top + step_y - gap, left : left + step_x - gap] = image
    figure = Figure(figsize=(sheet.shape[1] / DOTS_PER_INCH, sheet.shape[0] / DOTS_PER_INCH))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.imshow(sheet, interpolation="nearest")
    axes.set_frame_on(False)
    middles = [line * step_y + (step_y - gap) / 2 for line in range(len(rows))]
    axes.set_yticks(middles, list(rows), fontsize=8, parse_math=False)
    centres = [column * step_x + (step_x - gap) / 2 for column in range(len(labels))]
    axes.set_xticks(centres, list(labels), fontsize=8, parse_math=False)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    return _png(figure)


def sweep_grid(prompts: Sequence[str], by_scale: Mapping[float, Images]) -> bytes:
    """Draws one picture of each prompt (rows) at every scale (columns), all of one noise."""
    scales = list(by_scale)
    rows = {folded(p): np.stack([by_scale[s][i] for s in scales]) for i, p in enumerate(prompts)}
    return picture_rows(rows, [f"{scale:g}" for scale in scales])


def measure_curves(rows: Sequence[LoraRow]) -> bytes:
    """Draws every measure against the scale with its 95 % interval, a line for each prompt set."""
    names = [name for name in MEANINGS if any(name in row.measures for row in rows)]
    height = -(-len(names) // PANELS)
    figure = Figure(figsize=(3.1 * PANELS, 2.5 * height))
    panels = figure.subplots(height, PANELS, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        for role, line in by_role(rows).items():
            taken = {row.scale: row.measures[name] for row in line if name in row.measures}
            if not taken:
                continue
            x, values = list(taken), [score.value for score in taken.values()]
            axes.plot(x, values, "o-", ms=3, color=COLOURS[role], label=role)
            ends = [(s.low, s.high) for s in taken.values() if s.low is not None]
            if len(ends) == len(taken):
                low, high = zip(*ends, strict=True)
                axes.fill_between(x, low, high, color=COLOURS[role], alpha=0.18, lw=0)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
        axes.set_xlabel("scale", fontsize=7)
        axes.legend(fontsize=6.5)
    figure.tight_layout()
    return _png(figure)


def training_curves(losses: NDArray[np.float64], validation: Sequence[tuple[int, float]]) -> bytes:
    """Draws the loss of every step, its running mean, and the validation losses by step."""
    figure = Figure(figsize=(7.2, 3.2))
    axes = figure.subplots()
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="#9db8cc", lw=0.7, label="loss of a step")
    width = min(WINDOW, len(losses))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(steps[width - 1 :], smooth, color="#0b3c5d", lw=1.6, label=f"mean of {width}")
    if validation:
        x, y = zip(*validation, strict=True)
        axes.plot(x, y, "s--", ms=4, color="#b23a48", label="validation")
    axes.set(xlabel="step", ylabel="loss")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return _png(figure)


def folded(text: str, width: int = 24) -> str:
    """Returns the beginning of a text in at most five lines of about `width` characters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:5])


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, bbox_inches="tight")
    return buffer.getvalue()
