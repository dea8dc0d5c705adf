"""Paired comparisons of the table's rows as text, for terminals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

import typer

from ddim_core.common.foreign import Json
from ddim_core.decisions.best import rank, usual_margin
from ddim_core.decisions.compare import (
    comparable_sets,
    pairing,
    require_paired,
    unpaired_fields,
)
from ddim_core.decisions.measure import FID, Measure
from ddim_core.decisions.row import CellRow, is_ours, line_name
from ddim_core.reports.grid_sentences import mixed_clipping, read_best, read_pairing


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


def show_comparisons(
    rows: Sequence[CellRow],
    one_set: bool,
    as_json: bool,
    measure: Measure = FID,
    margin: float = 0.0,
) -> None:
    """Prints how much worse each row is than the best of those that it can be compared with.

    Args:
        rows: Of the table. Where they were not chosen, those without a value of what decides are
            left out, and said.
        one_set: Whether the rows were chosen to be compared: then they all must be comparable.
        as_json: As JSON, for programs.
        measure: What decides.
        margin: A difference that does not count; 0 takes 2 % of the best value.

    Raises:
        ValueError: If `one_set`, and two rows are of different protocol or noise (names the
            fields), or a row has no value; if no row has one; or the margin cannot be.
    """
    if not 0.0 <= margin < math.inf:
        raise ValueError(f"margin is {margin}; it must be at least 0")
    if one_set:
        measure.has_intervals(rows)
        for row in rows[1:]:
            require_paired(rows[0], row, measure)
    known = [row for row in rows if measure.is_known(row)]
    if rows and not known:
        measure.value(rows[0])
    sets = comparable_sets(known, measure)
    if as_json:
        found = [_as_data(rows, measure, margin) for rows in sets]
        typer.echo(json.dumps(found, indent=2))
    elif not rows:
        typer.echo("The table is empty; `ddim grid` fills it.")
    else:
        for i, members in enumerate(sets):
            if i:
                fields = ", ".join(unpaired_fields(sets[0][0], members[0], measure))
                typer.echo(f"\nNot compared with the first rows, which differ in {fields}:")
            _show(members, measure, margin)
    without = [row.cell_digest[:10] for row in rows if not measure.is_known(row)]
    if without:
        why = f"since they have no {measure.name} ({measure.remedy})"
        typer.echo(f"\nNot compared, {why}: {', '.join(without)}", err=as_json)


def _show(rows: list[CellRow], measure: Measure, margin: float) -> None:
    first = rows[0]
    typer.echo(
        f"\n{first.dataset} {first.split}, {first.extractor} features, N = {first.n_images}, "
        f"{first.n_reference or 'unknown'} real, seed {first.seed}: how much worse than the best "
        f"by {measure.title}, paired over {len(measure.group_sizes(first))} groups of images; "
        f"intervals and p hold for all {len(rows)} cells together"
    )
    if not measure.has_intervals(rows):
        typer.echo("There are too few images for intervals, so nothing is compared.")
        return
    found = rank(rows, measure, usual_margin(rows, measure, asked=margin))
    width = max(len(line_name(row)) for row in rows)
    calls = not all(map(is_ours, rows))  # else they are S, or twice S, on every line
    typer.echo(
        f"{'cell':>10} {'checkpoint':>24} {'':>{width}} {'S':>5}{' calls' if calls else ''} "
        f"{measure.title:>9} {'difference':>11} {'worse than the best by':>22} {'p':>8} "
        f"{'decided at':>12}"
    )
    for one in sorted(found.standings, key=lambda one: one.behind):
        row = one.row
        name = f"{row.checkpoint} {row.checkpoint_digest[:8]}"
        interval = measure.worse_by(one.low, one.high)
        at = f"{one.decided_at:,}" if one.decided_at else "-"
        marks = [measure.extreme] if one is found.best else ["tied"] if one.tied else []
        marks += ["recommended"] if row is found.recommended else []
        typer.echo(
            f"{row.cell_digest[:10]:>10} {name[-24:]:>24} {line_name(row):>{width}} "
            f"{row.steps:>5}{f'{row.nfe:>6}' if calls else ''} "
            f"{measure.number(measure.value(row)):>9} {measure.number(one.behind):>11} "
            f"{interval:>22} {one.p_value:>8.2g} {at:>12}  {', '.join(marks)}".rstrip()
        )
    for sentence in [*read_best(found), *read_pairing(rows, measure), *mixed_clipping(rows)]:
        typer.echo(sentence)


def _as_data(rows: list[CellRow], measure: Measure, margin: float) -> Json:
    told = {"decide_by": measure.name, "nfe": {row.cell_digest: row.nfe for row in rows}}
    if not measure.has_intervals(rows):
        none: Json = {"best": None, "tied_with_best": [], "recommended": None}
        return {**told, **none, "comparisons": [], "why": "too few images"}
    found = rank(rows, measure, usual_margin(rows, measure, asked=margin))
    best, bought = found.best.row.cell_digest, pairing(rows, measure)
    return {
        **told,
        "best": best,
        "best_may_be_worse_by": found.best.high,
        "tied_with_best": [one.row.cell_digest for one in found.ties],
        "recommended": found.recommended.cell_digest if found.recommended else None,
        "within_margin": [one.row.cell_digest for one in found.within],
        "margin": vars(found.margin),
        "comparisons": [
            {
                "a": one.row.cell_digest, "b": best, "behind": one.behind, "low": one.low,
                "high": one.high, "p_value": one.p_value, "tied": one.tied,
                "decided_at": one.decided_at,
            }
            for one in found.standings
            if one is not found.best
        ],
        "pairing": asdict(bought) if bought else None,
        "why": None,
    }  # fmt: skip
