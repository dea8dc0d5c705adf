"""What came of tuning, as text or JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from flows.cli.text.damage import told_of
from flows.cli.text.table import show_grid
from tasks.storage.cell_rows import read_rows

if TYPE_CHECKING:
    from flows.tune import TuneOutcome


def show_tuned(result: TuneOutcome, as_json: bool = False) -> None:
    """Prints the rows of the proof, the samplers with their lists, and where the report is; as JSON
    all that came of it, with the rows in all columns."""
    if as_json:
        found = read_rows(result.grid.cells if result.grid else [])
        with told_of(found):
            rows = json.loads(found.frame.to_json(orient="records", date_format="iso"))
            typer.echo(json.dumps({**asdict(result), "rows": rows}, indent=2))
        return
    if result.grid is not None:
        show_grid(result.grid)
    typer.echo("\ntuned:")
    for sampler in dict.fromkeys(result.samplers):
        typer.echo(f"  {sampler}")
    typer.echo(f"report: {result.report}")
