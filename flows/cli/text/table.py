"""The table as text, for terminals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import typer

from ddim_core.decisions.row import CellRow, is_ours, line_name, score_digests
from ddim_core.decisions.trust import doubts_of
from ddim_core.diffusion.specs import RESIZES
from ddim_core.reports.grid_sentences import mixed_clipping
from flows.cli.text.damage import end_with, told_of
from flows.grid.outcome import GridOutcome
from tasks.storage import places
from tasks.storage.cell_rows import read_rows
from tasks.tracking.address import how_to_open

CELL = 10  # digits of a cell's digest: enough for `ddim score` and `ddim export` to find it
# What rows under one heading share.
TOGETHER = (
    "checkpoint", "dataset", "split", "extractor", "n_images", "n_reference", "seed", "resolution",
    "checkpoint_digest", "reference_digest", "extractor_digest", "overrides",
    "prompts_digest", "shard_size", "image_scores",
)  # fmt: skip
PER_WORKER = (
    "images/s: of one worker, by the clock, loading and waiting for a core beside the others "
    "included; workers draw side by side"
)


def show_grid(result: GridOutcome, as_json: bool = False) -> None:
    """Prints the rows of one grid, and where its report, the table and the runs are; as JSON all
    that came of it, with the rows in all columns."""
    found = read_rows(result.cells)
    with told_of(found):
        if as_json:
            rows = json.loads(found.frame.to_json(orient="records", date_format="iso"))
            typer.echo(json.dumps({**asdict(result), "rows": rows}, indent=2))
        else:
            _show_grid(result, found.rows)
    end_with(result.damaged)


def _show_grid(result: GridOutcome, rows: Sequence[CellRow]) -> None:
    if result.cells:
        show_table(rows)
    if verdict := result.verdict:
        typer.echo(f"\nagainst {verdict.against}: {verdict.sentences[0]}")
        typer.echo(f"verdict: {verdict.page}")
    if result.advice:
        typer.echo("\n" + "\n".join(result.advice))
    show_places(result)


def show_places(result: GridOutcome) -> None:
    """Prints how many images were drawn, and where the report, the table and the runs are."""
    typer.echo(f"\nimages drawn: {result.images_drawn} (all others came from the store)")
    typer.echo(f"report:  {result.report}")
    typer.echo(f"table:   {places.data_url('results', 'cells')} (Parquet; `ddim table` prints it)")
    typer.echo(f"MLflow:  {how_to_open()}")


def show_table(rows: Sequence[CellRow]) -> None:
    """Prints rows with their intervals, counts and protocol."""
    if not rows:
        typer.echo("The table is empty; `ddim grid` fills it.")
        return
    for group in _groups(rows):
        first = group[0]
        step = "" if first.training_step is None else f" (step {first.training_step})"
        typer.echo(
            f"\n{first.checkpoint}{step} {first.checkpoint_digest[:8]} against {first.dataset} "
            f"{first.split}, {first.resolution}x{first.resolution}: N = {first.n_images} a cell, "
            f"{first.n_reference or 'unknown'} real, {_features(first)} features, {_spacing(group)}"
            f"seed {first.seed}, 95 % intervals{_departures(first)}"
        )
        width = max(len(line_name(row)) for row in group)
        classes = any(row.class_accuracy is not None for row in group)
        calls = not all(map(is_ours, group))
        scores = list(score_digests(first))
        typer.echo(
            f"{'':>{width}} {'S':>5}{_if(calls, ' calls')} {'FID':>9} {'interval':>19} "
            f"{'FID_inf':>9} {'interval':>19} {'KID*1e3':>8} {'images/s':>9}"
            f"{_if(classes, '  asked class')}"
            f"{''.join(f'{name:>13} ' + 'interval'.rjust(17) for name in scores)} {'cell':>{CELL}}"
        )
        for row in group:
            typer.echo(_line(row, width, classes, calls, scores))
        for note in [*mixed_clipping(group), *doubts_of(group)]:
            typer.echo(note)
    typer.echo(PER_WORKER)


def _departures(row: CellRow) -> str:
    """What was asked for instead of the checkpoint's own settings, and what else rows differ in."""
    found = [row.overrides] if row.overrides else []
    found += [] if row.weights is None else [f"{row.weights} weights"]
    found += [] if row.prompts_digest is None else [f"prompts {row.prompts_digest[:8]}"]
    if row.shard_size and row.shard_size < row.n_images:
        found.append(f"shards of {row.shard_size} images")
    return "".join(f"; {text}" for text in found)


def _features(row: CellRow) -> str:
    """The features' name, with the resize where the network has one."""
    return f"{row.extractor}-{row.resize}" if row.resize in RESIZES else row.extractor


def _groups(rows: Sequence[CellRow]) -> list[list[CellRow]]:
    """Rows that one heading tells all of. Those of our own sampler share their spacing too; one of
    diffusers' schedulers has its own, and stands with any."""
    shared = [tuple(getattr(row, name) for name in TOGETHER) for row in rows]
    ours = {key: row.spacing for key, row in zip(shared, rows, strict=True) if is_ours(row)}
    found: dict[tuple[object, ...], list[CellRow]] = {}
    for key, row in zip(shared, rows, strict=True):
        spacing = row.spacing if is_ours(row) else ours.get(key)
        found.setdefault((*key, spacing), []).append(row)
    return list(found.values())


def _spacing(group: Sequence[CellRow]) -> str:
    own = next((row for row in group if is_ours(row)), None)
    return f"{own.spacing} spacing, " if own else ""


def _line(row: CellRow, width: int, classes: bool, calls: bool, scores: Sequence[str]) -> str:
    inf = f"{'-':>9}" if row.fid_inf is None else f"{row.fid_inf:9.2f}"
    kid = f"{'-':>8}" if row.kid is None else f"{1000 * row.kid:8.2f}"
    share = "-" if row.class_accuracy is None else f"{100 * row.class_accuracy:.1f} %"
    return (
        f"{line_name(row):>{width}} {row.steps:>5}{_if(calls, f'{row.nfe:>6}')} {row.fid:9.2f} "
        f"{_interval(row.fid_low, row.fid_high):>19} {inf} "
        f"{_interval(row.fid_inf_low, row.fid_inf_high):>19} "
        f"{kid} {row.images_per_second:9.0f}{_if(classes, f'{share:>13}')}"
        f"{''.join(_by_image(row, name) for name in scores)} {row.cell_digest[:CELL]}"
    )


def _by_image(row: CellRow, name: str) -> str:
    """A score of images with its interval."""
    value, low, high = (getattr(row, name + part) for part in ("", "_low", "_high"))
    between = "-" if low is None else f"[{low:.4g}, {high:.4g}]"
    return f"{value:13.4g} {between:>17}"


def _if(shown: bool, text: str) -> str:
    """A column of some tables."""
    return text if shown else ""


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"[{low:.2f}, {high:.2f}]"
