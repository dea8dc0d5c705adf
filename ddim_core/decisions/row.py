"""How a row of the table is called in a sentence, and its numbers with their intervals."""

from __future__ import annotations

from ddim_core.decisions.compare import Row


def line_name(row: Row) -> str:
    """Names a row's line in the grid: its eta, or sigma-hat; whether it clips; its guidance."""
    line = "sigma-hat" if row["variance"] == "sigma_hat" else f"eta = {row['eta']:g}"
    notes = ["clips"] if row.get("clip") else []
    scale = row.get("guidance_scale", 1.0)
    notes += [f"g = {scale:g}"] if scale != 1.0 else []
    return f"{line} ({', '.join(notes)})" if notes else line


def cell_name(row: Row) -> str:
    return f"S = {row['steps']}, {line_name(row)}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Writes a score with its 95 % interval."""
    if value is None:
        return "not identifiable"
    if low is None or high is None:
        return f"{value:.2f} [too few images for an interval]"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
