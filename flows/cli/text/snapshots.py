"""Snapshots ranked, as text for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from ddim_core.reports.verdicts.snapshots import picks_text, value_text, worse_text
from flows.cli.text.table import show_grid, show_places
from flows.snapshots import SnapshotOutcome


def show_snapshots(result: SnapshotOutcome, as_json: bool = False) -> None:
    """Prints the snapshots, the best first, what each setting alone would have picked, and where
    the report, the table and the runs are; as JSON all of it, with the rows in all columns."""
    if as_json:
        show_grid(result, as_json)
        return
    found = result.ranking
    typer.echo(
        f"\neach snapshot at its own best setting; intervals hold together, "
        f"{100 * found.confidence:g} %"
    )
    title = found.measure.title
    head = ["snapshot", "step", "best setting", title, "worse than the best by", "N"]
    ranked = [found.snapshots[place] for place in found.order]
    _table(head, [
        [one.name, "-" if one.training_step is None else str(one.training_step), one.setting,
         value_text(found, one), worse_text(found, one.behind), str(one.n_images)]
        for one in ranked
    ])  # fmt: skip
    if found.settings:
        typer.echo("\nat one setting for all")
        _table(["setting", "picks", "worse than the best by", "at this setting by"], [
            [one.setting, picks_text(found, one), worse_text(found, one.behind),
             worse_text(found, one.there)]
            for one in found.settings
        ])  # fmt: skip
    show_places(result)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    for line in (head, *lines):
        cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
