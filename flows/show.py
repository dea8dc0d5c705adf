"""The table as text, for terminals."""

from __future__ import annotations

from typing import Any

import pandas as pd
import typer

from ddim_core.reading import line_name
from ddim_core.specs import RESIZES
from flows.show_damage import end_with, told_of
from tasks import places
from tasks.cell_rows import read_rows
from tasks.tracking import how_to_open


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
         "overrides"],
        sort=False, dropna=False,
    ):  # fmt: skip
        checkpoint, dataset, split, _, n_images, n_reference, seed, spacing, size, *_ = protocol
        first = rows.iloc[0]
        features = _features(first)
        step = "" if pd.isna(first["training_step"]) else f" (step {first['training_step']})"
        typer.echo(
            f"\n{checkpoint}{step} {first['checkpoint_digest'][:8]} against {dataset} {split}, "
            f"{size}x{size}: N = {n_images} a cell, {n_reference} real, {features} features, "
            f"{spacing} spacing, seed {seed}, 95 % intervals{_departures(first)}"
        )
        typer.echo(
            f"{'':>16} {'S':>5} {'FID':>9} {'interval':>19} {'FID_inf':>9} {'interval':>19} "
            f"{'KID*1e3':>8} {'images/s':>9}"
            + (f" {'asked class':>12}" if rows["class_accuracy"].notna().any() else "")
        )
        for row in rows.to_dict("records"):
            typer.echo(_line({str(name): value for name, value in row.items()}))


def _departures(row: pd.Series) -> str:
    """What was asked for instead of the checkpoint's own settings, and which of its weights."""
    found = [row["overrides"]] if pd.notna(row["overrides"]) and row["overrides"] else []
    found += [f"{row['weights']} weights"] if pd.notna(row["weights"]) else []
    return "".join(f"; {text}" for text in found)


def _features(row: Any) -> str:
    """The features' name, with the resize where the network has one."""
    return f"{row['extractor']}-{row['resize']}" if row["resize"] in RESIZES else row["extractor"]


def _line(row: dict[str, Any]) -> str:
    inf = f"{row['fid_inf']:9.2f}" if pd.notna(row["fid_inf"]) else f"{'-':>9}"
    return (
        f"{line_name(row):>16} {row['steps']:>5} {row['fid']:9.2f} "
        f"{_interval(row['fid_low'], row['fid_high']):>19} {inf} "
        f"{_interval(row['fid_inf_low'], row['fid_inf_high']):>19} "
        f"{1000 * row['kid']:8.2f} {row['images_per_second']:9.0f}"
        + (f" {100 * row['class_accuracy']:10.1f} %" if pd.notna(row["class_accuracy"]) else "")
    )


def _interval(low: float, high: float) -> str:
    return f"[{low:.2f}, {high:.2f}]" if pd.notna(low) and pd.notna(high) else "-"
