"""Paired comparisons of the table's rows as text, for terminals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer

from ddim_core.decisions.compare import (
    comparable_sets,
    compare_with_best,
    require_paired,
    unpaired_fields,
)
from ddim_core.decisions.row import CellRow, is_ours, line_name
from ddim_core.reports.grid_sentences import mixed_clipping


def chosen(rows: Sequence[CellRow], prefixes: Sequence[str]) -> list[int]:
    """Returns the places of the rows whose cell digests begin so; all if none is asked for.

    Raises:
        ValueError: If a prefix fits no row, or several.
    """
    if not prefixes:
        return list(range(len(rows)))
    places = []
    for prefix in prefixes:
        fits = [i for i, row in enumerate(rows) if row.cell_digest.startswith(prefix)]
        if len(fits) != 1:
            raise ValueError(f"cell {prefix!r} fits {len(fits)} rows of the table; it must fit one")
        places += fits
    return list(dict.fromkeys(places))


def show_comparisons(rows: Sequence[CellRow], one_set: bool, as_json: bool) -> None:
    """Prints each row's paired difference from the best row that it can be compared with.

    Args:
        rows: Of the table.
        one_set: Whether the rows were chosen to be compared: then they all must be comparable.
        as_json: As JSON, for programs.

    Raises:
        ValueError: If `one_set`, and two rows are of different protocol or noise (names the
            fields), or a row has no interval.
    """
    if one_set:
        for row in rows[1:]:
            require_paired(rows[0], row)
    sets = comparable_sets(rows)
    if as_json:
        typer.echo(json.dumps([_as_data(rows) for rows in sets], indent=2))
        return
    if not rows:
        typer.echo("The table is empty; `ddim grid` fills it.")
    for i, members in enumerate(sets):
        if i:
            fields = ", ".join(unpaired_fields(sets[0][0], members[0]))
            typer.echo(f"\nNot compared with the first rows, which differ in {fields}:")
        _show(members)


def _show(rows: list[CellRow]) -> None:
    first = rows[0]
    typer.echo(
        f"\n{first.dataset} {first.split}, {first.extractor} features, "
        f"N = {first.n_images}, {first.n_reference or 'unknown'} real, seed {first.seed}: paired "
        f"differences from the lowest FID over {len(first.group_sizes)} groups of images; "
        f"p corrected for all {len(rows) * (len(rows) - 1) // 2} pairs (Holm)"
    )
    if any(len(row.fid_leave_one_out) < 2 for row in rows):
        typer.echo("There are too few images for intervals, so nothing is compared.")
        return
    best, found = compare_with_best(rows)
    width = max(len(line_name(row)) for row in rows)
    calls = not all(map(is_ours, rows))  # else they are S, or twice S, on every line
    typer.echo(
        f"{'cell':>10} {'checkpoint':>24} {'':>{width}} {'S':>5}{' calls' if calls else ''} "
        f"{'FID':>9} {'difference':>11} {'95 % interval':>19} {'p':>8} {'p corrected':>12}"
    )
    for i in sorted(range(len(rows)), key=lambda i: float(rows[i].fid)):
        row = rows[i]
        name = f"{row.checkpoint} {row.checkpoint_digest[:8]}"
        head = (
            f"{row.cell_digest[:10]:>10} {name[-24:]:>24} {line_name(row):>{width}} "
            f"{row.steps:>5}{f'{row.nfe:>6}' if calls else ''} {row.fid:>9.2f}"
        )
        if row is best:
            typer.echo(f"{head}  lowest")
            continue
        test = found[i]
        interval = f"[{test.low:+.3f}, {test.high:+.3f}]"
        mark = "  tied with the lowest" if test.verdict == "tied" else ""
        typer.echo(
            f"{head} {test.value:>+11.3f} {interval:>19} {test.p_value:>8.2g} "
            f"{test.p_adjusted:>12.2g}{mark}"
        )
    for note in mixed_clipping(rows):
        typer.echo(note)


def _as_data(rows: list[CellRow]) -> dict[str, Any]:
    if any(len(row.fid_leave_one_out) < 2 for row in rows):
        none: dict[str, Any] = {"best": None, "tied_with_best": [], "comparisons": []}
        return {**none, "nfe": _calls(rows), "why": "too few images"}
    best, found = compare_with_best(rows)
    return {
        "best": best.cell_digest,
        "tied_with_best": [c.a for c in found.values() if c.verdict == "tied"],
        "comparisons": [{**asdict(c), "verdict": c.verdict} for c in found.values()],
        "nfe": _calls(rows),
        "why": None,
    }


def _calls(rows: list[CellRow]) -> dict[str, int]:
    """Network calls an image, by cell."""
    return {row.cell_digest: row.nfe for row in rows}
