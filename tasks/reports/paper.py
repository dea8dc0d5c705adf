"""The paper's experiments in, a report out: ours beside the paper's own numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prefect import task

from ddim_core.common.foreign import Json
from ddim_core.decisions.measure import FID
from ddim_core.decisions.row import CellRow, line_name, with_interval
from ddim_core.diffusion.reconstruction import MeanError
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
from ddim_core.reports.paper_sentences import (
    RECONSTRUCTION,
    SOURCE,
    TABLE_1_SETTING,
    TABLE_2_SETTING,
    fid_of,
    read_paper,
    table_1,
)
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.reports.verdict_page import pictured
from tasks.sampling.beyond_sampling import Reconstruction
from tasks.storage import store
from tasks.storage.artifact import Report
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.storage.store import ArtifactRef

TEMPLATE = Path(__file__).with_suffix(".html")
SHEET_IMAGES = 12


@dataclass(frozen=True)
class RealImages:
    """The real images that are encoded: of which data set and split, whether held out from the
    training, how many, and what is to be known of them."""

    dataset: str
    split: str
    held_out: bool
    n: int
    notes: list[str]


@cached_task
def render_paper_report(
    rows: list[CellRow],
    reconstructions: list[Reconstruction],
    pictures: dict[str, ArtifactRef],
    samples: Sequence[ArtifactRef],
    sampled: list[str],
    real: RealImages,
    findings: list[str],
    failures: list[str],
) -> Report:
    """Draws the figures, reads the numbers and renders the page.

    What failed has no figure, and is named on the page.

    Args:
        rows: The grid's rows, at least one.
        reconstructions: By S.
        pictures: Results of `consistency`, `interpolate` and `x0_sequence`, so named.
        samples: First shards of some cells.
        sampled: The digests of these cells.
        real: What was reconstructed.
        findings: Of the schedule linter.
        failures: What failed.
    """
    shown = {name: store.get_arrays(ref) for name, ref in pictures.items()}
    returned = {r.steps: store.get_arrays(r) for r in reconstructions}
    by_cell = {row.cell_digest: row for row in rows}
    sheet = [
        (by_cell[cell], store.get_arrays(ref)["images"][:SHEET_IMAGES])
        for cell, ref in zip(sampled, samples, strict=True)
    ]
    about = f"{rows[0].checkpoint}, {real.n} images of {real.dataset} {real.split}"
    figures = {"table_1": table_1_figure(rows), "figure_4_cost": cost_figure(rows)}
    if sheet:
        figures["figure_3_samples"] = samples_sheet(sheet)
    if returned:
        figures["table_2"] = table_2_figure({r.steps: r.error for r in reconstructions}, about)
        figures["reconstructions"] = reconstruction_sheet(
            next(iter(returned.values()))["real"],
            {steps: arrays["decoded"] for steps, arrays in returned.items()},
        )
    figures |= _pictures(shown)
    reading = read_paper(rows, {steps: arrays["errors"] for steps, arrays in returned.items()})
    drawn_with = {name: arrays["steps"].tolist() for name, arrays in shown.items()}
    compared, _ = pictured([(by_cell[cell], "") for cell in sampled], FID)
    text = _page(
        rows, reconstructions, figures, reading, real, findings, failures, drawn_with, compared
    )
    return page.stored(text, figures, reading)


def _pictures(shown: dict[str, dict[str, np.ndarray]]) -> dict[str, bytes]:
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
    report: Report,
    rows: list[CellRow],
    reconstructions: list[Reconstruction],
) -> str:
    """Puts a rendered report where people look: reports/paper-<name>/, and a Prefect artifact.

    Returns the page's place.
    """
    place = page.publish(f"paper-{name[:12]}", report)
    page.show("paper-report", _markdown(rows, reconstructions, report.reading, place))
    return place


def error_text(error: MeanError) -> str:
    """Writes a reconstruction error with its interval, to two digits of the error."""
    if error.low is None or error.high is None:
        return f"{error.mean:.2g} [one image, no interval]"
    return f"{error.mean:.2g} [{error.low:.2g}, {error.high:.2g}]"


def _page(
    rows: list[CellRow],
    reconstructions: list[Reconstruction],
    figures: dict[str, bytes],
    reading: list[str],
    real: RealImages,
    findings: list[str],
    failures: list[str],
    drawn_with: dict[str, list[int]],
    compared: Json,
) -> str:
    return page.html(
        TEMPLATE,
        figures,
        {
            "data": {"lines": _charts(rows, reconstructions), **compared},
            "rows": rows,
            "first": rows[0],
            "identities": page.identities(rows),
            "reconstructions": reconstructions,
            "reading": reading,
            "real": real,
            "findings": findings,
            "failures": failures,
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


def _charts(rows: list[CellRow], reconstructions: list[Reconstruction]) -> Json:
    """Ours, and the paper's apart where they do not compare."""
    ours = [(line_name(r), r.steps, r.fid, r.fid_low, r.fid_high) for r in rows]
    papers = [(line_name(cell), cell.steps, cell.fid, None, None) for cell in table_1()]
    errors = [("ours", r.steps, r.error.mean, r.error.low, r.error.high) for r in reconstructions]
    published = [("the paper's", s, error, None, None) for s, error in RECONSTRUCTION.items()]
    seconds = [
        (line_name(r), r.steps, 1000 * r.sample_seconds / r.n_images, None, None) for r in rows
    ]
    unit = "squared error per dimension, pixels in [0, 1]"
    return {
        "table_1": charts.over_steps("FID over S", "FID", ours),
        "table_1_paper": charts.over_steps("The paper's FID over S", "FID", papers),
        "cost": charts.over_steps("Cost over S", "seconds for 1000 images", seconds),
        "table_2": charts.over_steps("Reconstruction error over S", unit, [*errors, *published]),
    }


def _markdown(
    rows: list[CellRow],
    reconstructions: list[Reconstruction],
    reading: list[str],
    place: str,
) -> str:
    """The report's core; names from data stand in code spans, where Markdown is not read."""
    first = rows[0]
    checkpoint, dataset = (f"`{k.replace('`', '')}`" for k in (first.checkpoint, first.dataset))
    steps = sorted({row.steps for row in rows})
    table = "| FID, ours (the paper's) | " + " | ".join(f"S = {s}" for s in steps) + " |\n"
    table += "|---" * (1 + len(steps)) + "|\n"
    for name, line in lines(rows).items():
        cells = {row.steps: _beside(f"{row.fid:.2f}", fid_of(row)) for row in line}
        table += f"| {name} | " + " | ".join(cells.get(s, "-") for s in steps) + " |\n"
    errors = "| S | squared error, ours | the paper's |\n|---|---|---|\n"
    for r in reconstructions:
        published = RECONSTRUCTION.get(r.steps, "-")
        errors += f"| {r.steps} | {error_text(r.error)} | {published} |\n"
    return (
        f"# The paper's experiments on {checkpoint}, {dataset}\n\n"
        f"The paper's numbers are of another model and data set ({SOURCE}; {TABLE_1_SETTING}).\n\n"
        f"{table}\nOurs: N = {first.n_images} images a cell, {first.n_reference} real, "
        f"{first.extractor} features; intervals are in the report.\n\n{errors}\n"
        + "\n\n".join(reading)
        + f"\n\nReport: {page.linked(place)}\n"
    )


def _beside(ours: str, papers: float | None) -> str:
    return f"{ours} ({papers:g})" if papers is not None else ours
