"""The paper's experiments in, a report out: ours beside the paper's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from prefect import task

from ddim_core.decisions.row import line_name, with_interval
from ddim_core.reports.grid_sentences import lines
from ddim_core.reports.paper_figures import (
    consistency_sheet,
    cost_figure,
    grid_sheet,
    line_sheet,
    reconstruction_sheet,
    samples_sheet,
    table_1_figure,
    table_2_figure,
    x0_sheet,
)
from ddim_core.reports.paper_numbers import (
    RECONSTRUCTION,
    SOURCE,
    TABLE_1_SETTING,
    TABLE_2_SETTING,
    fid_of,
)
from ddim_core.reports.paper_sentences import read_paper
from tasks.cells.table import read_table
from tasks.reports import page
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.storage.store import ArtifactRef

TEMPLATE = Path(__file__).with_suffix(".html")
SHEET_IMAGES = 12


@task(name="read-rows", task_run_name=run_name("read-rows"))
def read_rows(cells: list[str]) -> list[dict[str, Any]]:
    """Returns rows of the table as plain values, line by line and then by S."""
    frame = read_table(cells)
    frame["created_at"] = frame["created_at"].map(lambda when: when.isoformat())
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


@cached_task
def render_paper_report(
    rows: list[dict[str, Any]],
    reconstructions: list[Any],
    pictures: dict[str, ArtifactRef],
    samples: Sequence[ArtifactRef],
    sampled: list[str],
    real: dict[str, Any],
) -> dict[str, Any]:
    """Draws the figures, reads the numbers and renders the page; returns references to them.

    What failed has no figure, and is named on the page.

    Args:
        rows: The grid's rows, at least one.
        reconstructions: Results of `explore.reconstruct`, by S.
        pictures: Results of `consistency`, `interpolate` and `x0_sequence`, so named.
        samples: First shards of some cells.
        sampled: The digests of these cells.
        real: The `dataset` and `split` of the reconstructed images, whether they are `held_out`,
            and the `n` of them; the `notes` on the data, the `findings` of the schedule linter,
            and the `failures`.
    """
    shown = {name: store.get_arrays(ref) for name, ref in pictures.items()}
    returned = {r["steps"]: store.get_arrays(r) for r in reconstructions}
    by_cell = {row["cell_digest"]: row for row in rows}
    sheet = [
        (by_cell[cell], store.get_arrays(ref)["images"][:SHEET_IMAGES])
        for cell, ref in zip(sampled, samples, strict=True)
    ]
    about = f"{rows[0]['checkpoint']}, {real['n']} images of {real['dataset']} {real['split']}"
    figures = {"table_1": table_1_figure(rows), "figure_4_cost": cost_figure(rows)}
    if sheet:
        figures["figure_3_samples"] = samples_sheet(sheet)
    if returned:
        figures["table_2"] = table_2_figure(reconstructions, about)
        figures["reconstructions"] = reconstruction_sheet(
            next(iter(returned.values()))["real"],
            {steps: arrays["decoded"] for steps, arrays in returned.items()},
        )
    figures |= _pictures(shown)
    reading = read_paper(rows, {steps: arrays["errors"] for steps, arrays in returned.items()})
    drawn_with: dict[str, int] = {
        name: int(shown[name]["steps"][0])
        for name in ("interpolate", "x0_sequence")
        if name in shown
    }
    text = _page(rows, reconstructions, figures, reading, real, drawn_with)
    return page.stored(text, figures, reading)


def _pictures(shown: dict[str, Any]) -> dict[str, bytes]:
    """The figures of the experiments that did not fail."""
    figures = {}
    if same := shown.get("consistency"):
        steps = [int(s) for s in same["steps"]]
        figures["figure_5_consistency"] = consistency_sheet(
            dict(zip(steps, same["images"], strict=True))
        )
    if between := shown.get("interpolate"):
        figures["figure_6_line"] = line_sheet(between["line"])
        figures["figure_6_grid"] = grid_sheet(between["grid"])
    if predicted := shown.get("x0_sequence"):
        figures["x0_sequence"] = x0_sheet(predicted["t"].tolist(), predicted["x0_hat"])
    return figures


@task(name="publish-paper-report", task_run_name=run_name("publish-paper-report"))
def publish_paper_report(
    name: str,
    report: dict[str, Any],
    rows: list[dict[str, Any]],
    reconstructions: list[dict[str, Any]],
) -> str:
    """Puts a rendered report where people look: reports/paper-<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    place = page.publish(f"paper-{name[:12]}", report)
    page.show("paper-report", _markdown(rows, reconstructions, report["reading"], place))
    return place


def error_text(value: float, low: float | None, high: float | None) -> str:
    """Writes a reconstruction error with its interval, to two digits of the error."""
    if low is None or high is None:
        return f"{value:.2g} [one image, no interval]"
    return f"{value:.2g} [{low:.2g}, {high:.2g}]"


def _page(
    rows: list[dict[str, Any]],
    reconstructions: list[dict[str, Any]],
    figures: dict[str, bytes],
    reading: list[str],
    real: dict[str, Any],
    drawn_with: dict[str, int],
) -> str:
    return page.html(
        TEMPLATE,
        figures,
        {
            "rows": rows,
            "first": rows[0],
            "reconstructions": reconstructions,
            "reading": reading,
            "real": real,
            "drawn_with": drawn_with,
            "line_name": line_name,
            "interval": with_interval,
            "error_text": error_text,
            "fid_of": fid_of,
            "published_errors": RECONSTRUCTION,
            "source": SOURCE,
            "setting_1": TABLE_1_SETTING,
            "setting_2": TABLE_2_SETTING,
        },
    )


def _markdown(
    rows: list[dict[str, Any]],
    reconstructions: list[dict[str, Any]],
    reading: list[str],
    place: str,
) -> str:
    """The report's core; names from data stand in code spans, where Markdown is not read."""
    first = rows[0]
    checkpoint, dataset = (f"`{first[k].replace('`', '')}`" for k in ("checkpoint", "dataset"))
    steps = sorted({row["steps"] for row in rows})
    table = "| FID, ours (the paper's) | " + " | ".join(f"S = {s}" for s in steps) + " |\n"
    table += "|---" * (1 + len(steps)) + "|\n"
    for name, line in lines(rows).items():
        cells = {row["steps"]: _beside(f"{row['fid']:.2f}", fid_of(dict(row))) for row in line}
        table += f"| {name} | " + " | ".join(cells.get(s, "-") for s in steps) + " |\n"
    errors = "| S | squared error, ours | the paper's |\n|---|---|---|\n"
    for r in reconstructions:
        ours = error_text(r["mse"], r["mse_low"], r["mse_high"])
        errors += f"| {r['steps']} | {ours} | {RECONSTRUCTION.get(r['steps'], '-')} |\n"
    return (
        f"# The paper's experiments on {checkpoint}, {dataset}\n\n"
        f"The paper's numbers are of another model and data set ({SOURCE}; {TABLE_1_SETTING}).\n\n"
        f"{table}\nOurs: N = {first['n_images']} images a cell, {first['n_reference']} real, "
        f"{first['extractor']} features; intervals are in the report.\n\n{errors}\n"
        + "\n\n".join(reading)
        + f"\n\nReport: `{place}`\n"
    )


def _beside(ours: str, papers: float | None) -> str:
    return f"{ours} ({papers:g})" if papers is not None else ours


def _plain(value: Any) -> Any:
    """A value of a data frame as JSON has it: lists for arrays, None for what is missing."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return value
    return None if pd.isna(value) else value
