"""The table as text, for terminals."""

from __future__ import annotations

from typing import Any

import pandas as pd
import typer

from ddim_core.decisions.row import line_name
from ddim_core.diffusion.specs import RESIZES
from ddim_core.reports.grid_sentences import mixed_clipping
from flows.cli.text.damage import end_with, told_of
from tasks.storage import places
from tasks.storage.cell_rows import read_rows
from tasks.tracking.address import how_to_open

CELL = 10  # digits of a cell's digest: enough for `ddim score` and `ddim export` to find it
PER_WORKER = (
    "images/s: of one worker, by the clock, loading and waiting for a core beside the others "
    "included; workers draw side by side"
)


def show_grid(result: dict[str, Any]) -> None:
    """Prints the rows of one grid, and where its report, the table and the runs are."""
    found = read_rows(result["cells"])
    with told_of(found):
        _show_grid(result, found.frame)
    end_with(result.get("damaged", []))


def _show_grid(result: dict[str, Any], frame: pd.DataFrame) -> None:
    if result["cells"]:
        show_table(frame)
    if verdict := result.get("verdict"):
        typer.echo(f"\nagainst {verdict['against']}: {verdict['sentences'][0]}")
        typer.echo(f"verdict: {verdict['page']}")
    typer.echo(f"\nimages drawn: {result['images_drawn']} (all others came from the store)")
    typer.echo(f"report:  {result['report']}")
    typer.echo(f"table:   {places.data_url('results', 'cells')} (Parquet; `ddim table` prints it)")
    typer.echo(f"MLflow:  {how_to_open()}")


def show_table(frame: pd.DataFrame) -> None:
    """Prints rows with their intervals, counts and protocol."""
    if frame.empty:
        typer.echo("The table is empty; `ddim grid` fills it.")
        return
    for protocol, rows in frame.groupby(
        ["checkpoint", "dataset", "split", "extractor", "n_images", "n_reference", "seed",
         "spacing", "resolution", "checkpoint_digest", "reference_digest", "extractor_digest",
         "overrides", "prompts_digest", "shard_size"],
        sort=False, dropna=False,
    ):  # fmt: skip
        checkpoint, dataset, split, _, n_images, n_reference, seed, spacing, size, *_ = protocol
        first = rows.iloc[0]
        features = _features(first)
        step = "" if pd.isna(first["training_step"]) else f" (step {int(first['training_step'])})"
        typer.echo(
            f"\n{checkpoint}{step} {first['checkpoint_digest'][:8]} against {dataset} {split}, "
            f"{size}x{size}: N = {n_images} a cell, {n_reference} real, {features} features, "
            f"{spacing} spacing, seed {seed}, 95 % intervals{_departures(first)}"
        )
        records = [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
        width = max(len(line_name(row)) for row in records)
        classes = bool(rows["class_accuracy"].notna().any())
        typer.echo(
            f"{'':>{width}} {'S':>5} {'FID':>9} {'interval':>19} {'FID_inf':>9} {'interval':>19} "
            f"{'KID*1e3':>8} {'images/s':>9}{_asked_class('asked class', classes)} {'cell':>{CELL}}"
        )
        for row in records:
            typer.echo(_line(row, width, classes))
        for note in mixed_clipping(records):
            typer.echo(note)
    typer.echo(PER_WORKER)


def _departures(row: pd.Series) -> str:
    """What was asked for instead of the checkpoint's own settings, and what else rows differ in."""
    found = [row["overrides"]] if pd.notna(row["overrides"]) and row["overrides"] else []
    found += [f"{row['weights']} weights"] if pd.notna(row["weights"]) else []
    found += [f"prompts {row['prompts_digest'][:8]}"] if pd.notna(row["prompts_digest"]) else []
    if row["shard_size"] < row["n_images"]:
        found.append(f"shards of {row['shard_size']} images")
    return "".join(f"; {text}" for text in found)


def _features(row: Any) -> str:
    """The features' name, with the resize where the network has one."""
    return f"{row['extractor']}-{row['resize']}" if row["resize"] in RESIZES else row["extractor"]


def _line(row: dict[str, Any], width: int, classes: bool) -> str:
    inf = f"{row['fid_inf']:9.2f}" if pd.notna(row["fid_inf"]) else f"{'-':>9}"
    judged = pd.notna(row["class_accuracy"])
    share = f"{100 * row['class_accuracy']:.1f} %" if judged else "-"
    return (
        f"{line_name(row):>{width}} {row['steps']:>5} {row['fid']:9.2f} "
        f"{_interval(row['fid_low'], row['fid_high']):>19} {inf} "
        f"{_interval(row['fid_inf_low'], row['fid_inf_high']):>19} "
        f"{1000 * row['kid']:8.2f} {row['images_per_second']:9.0f}{_asked_class(share, classes)} "
        f"{row['cell_digest'][:CELL]}"
    )


def _asked_class(text: str, shown: bool) -> str:
    return f" {text:>12}" if shown else ""


def _interval(low: float, high: float) -> str:
    return f"[{low:.2f}, {high:.2f}]" if pd.notna(low) and pd.notna(high) else "-"
