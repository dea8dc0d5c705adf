"""Rows in, a report out: one HTML file that opens from disk, and Markdown for Prefect's UI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect import task

from ddim_core.decisions.best import Ranking, rank, usual_margin
from ddim_core.decisions.by_image import (
    read_image_scores,
    shared_scores,
)
from ddim_core.decisions.measure import FID, Measure, measure_of
from ddim_core.decisions.row import (
    CellRow,
    cell_name,
    is_ours,
    line_name,
    score_digests,
    score_shards,
    with_interval,
)
from ddim_core.decisions.trust import doubts_of
from ddim_core.reports.answers.grid import answer
from ddim_core.reports.class_sentences import classes_said, shown_classes
from ddim_core.reports.grid_figures import contact_sheet, curves, heat_map, strip
from ddim_core.reports.grid_sentences import mixed_clipping, read_grid, why_no_fid_inf
from ddim_core.reports.verdicts.figures import pareto_plot
from ddim_core.scores.cell_score import CellScore
from ddim_core.scores.per_class import PerClass
from tasks.cells.lookup import real_images
from tasks.cells.protocol_matrix import MatrixLine
from tasks.image_scores.judge import values_of
from tasks.reports import page
from tasks.reports.frame.grid_data import compared_at_first, grid_data, told_id
from tasks.reports.frame.nearest import Images
from tasks.reports.frame.pictures import PAGE_IMAGES, Pictures, Predicted
from tasks.reports.records import FiledVerdict
from tasks.storage import store
from tasks.storage.artifact import Report, Trajectories
from tasks.storage.caching import cached_task
from tasks.storage.naming import run_name
from tasks.storage.previews import CELL_DIGITS, PREVIEW_OF
from tasks.storage.store import ArtifactRef

SHEET_IMAGES = 12
PREVIEWED, MOST_TOGETHER, MOST_STRIPS = 6, 8, 24  # images of a cell; cells
TEMPLATE = Path(__file__).with_suffix(".html")


@dataclass(frozen=True)
class AboutGrid:
    """What the cells of a grid share.

    Attributes:
        floor: The score of held-out real images, where there are any.
        test_accuracy: Of a classifier that was trained for its features.
        findings: Of the schedule linter.
        notes: On the real images (licence, broken ones).
        verdict: Against another checkpoint, if there is one.
        matrix: The best cell by several protocols; empty if it was not asked for.
        decide_by: Name of the measure that says which cell is best.
        margin: A difference in it that does not count, as asked; 0: half of the floor's interval,
            or 2 % of the best value.
    """

    floor: CellScore | None
    test_accuracy: float | None
    findings: list[str]
    notes: list[str]
    verdict: FiledVerdict | None
    matrix: list[MatrixLine]
    decide_by: str = FID.name
    margin: float = 0.0

    @property
    def measure(self) -> Measure:
        """What decides."""
        return measure_of(self.decide_by)

    def ranked(self, rows: list[CellRow]) -> Ranking | None:
        """Returns rows beside the best of them; None with too few images for intervals."""
        if not self.measure.has_intervals(rows):
            return None
        margin = usual_margin(rows, self.measure, self.margin)
        return rank(rows, self.measure, margin)


@cached_task
def render_report(
    rows: list[CellRow],
    first_shards: Sequence[ArtifactRef],
    about: AboutGrid,
    predicted: Sequence[Trajectories | None] = (),
) -> Report:
    """Draws the figures, reads the numbers and renders the page.

    Args:
        rows: The grid's rows, in grid order.
        first_shards: The first shard of each row's images.
        about: What the cells share.
        predicted: How the first images of each row's cell came about; None where that is not known.
    """
    images = [store.get_arrays(shard)["images"][:PAGE_IMAGES] for shard in first_shards]
    sheet = {cell_name(row): batch[:SHEET_IMAGES] for row, batch in zip(rows, images, strict=True)}
    figures = {
        "heat_map": heat_map(rows),
        "curves": curves(rows, about.floor, about.measure),
        "samples": contact_sheet(sheet),
    }
    if not all(map(is_ours, rows)):  # whose steps do not all cost the same
        figures["calls"] = pareto_plot(rows, about.measure)
    figures |= _previews(rows, images, about.measure)
    margin = usual_margin(rows, about.measure, about.margin)
    by_image = {
        column: [values_of(score_shards(row)[column]) for row in rows]
        for column in shared_scores(rows)
    }
    best, classes = _best_classes(rows)
    told = classes_said(classes) if classes else []
    reading = [*read_grid(rows, about.measure, margin), *read_image_scores(rows, by_image)]
    reading += [f"At {cell_name(best)}, {said}" for said in told]
    reading += doubts_of(rows)
    ids = [told_id(row) for row in rows]
    left, right = compared_at_first(rows, about.ranked(rows), about.measure)
    pictures = Pictures(
        batches=dict(zip(ids, images, strict=True)),
        left=left,
        right=right,
        orders={
            column: {id_: scores.tolist() for id_, scores in zip(ids, by, strict=True)}
            for column, by in by_image.items()
        },
        real=real_images(rows[0]),
        predicted={id_: _on_the_way(one) for id_, one in zip(ids, predicted, strict=False) if one},
    )
    text = _page(rows, reading, about, pictures)
    first = answer(rows, about.ranked(rows), about.measure).sentence
    return page.stored(text, figures, [first, *reading])


@task(name="publish-report", task_run_name=run_name("publish-report"))
def publish_report(grid: str, report: Report, rows: list[CellRow]) -> str:
    """Puts a rendered report where people look: reports/<grid>/, and Prefect artifacts.

    Returns the page's place.
    """
    place = page.publish(grid[:12], report)
    page.show("fid-grid-table", [_table_line(row) for row in rows])
    page.show("fid-grid-report", _markdown(rows, report.reading, place))
    page.show_picture(
        "fid-grid-images", report.figures["preview"],
        f"The best cells, at most {MOST_TOGETHER}, and their first images, all from one noise.",
        f"Images of the best cells. {report.reading[0]}",
    )  # fmt: skip
    return place


def _previews(
    rows: Sequence[CellRow], images: Sequence[Images], measure: Measure
) -> dict[str, bytes]:
    """The best cells' first images: together for Prefect, and a strip of each for MLflow's table,
    by the cell."""
    both = sorted(zip(rows, images, strict=True), key=lambda pair: measure.cost(pair[0]))
    sheet = {cell_name(row): batch[:PREVIEWED] for row, batch in both[:MOST_TOGETHER]}
    strips = {
        f"{PREVIEW_OF}{told_id(row)}": strip(batch[:PREVIEWED]) for row, batch in both[:MOST_STRIPS]
    }
    return {"preview": contact_sheet(sheet), **strips}


def _best_classes(rows: list[CellRow]) -> tuple[CellRow, PerClass | None]:
    """The cell of the lowest FID, and what its classes score, where it has classes."""
    best = min(rows, key=lambda row: row.fid)
    return best, PerClass.from_json(best.per_class)


def _page(
    rows: list[CellRow],
    reading: list[str],
    about: AboutGrid,
    pictures: Pictures | None,
) -> str:
    best, classes = _best_classes(rows)
    ranking = about.ranked(rows)
    standings = ranking.standings if ranking else ()
    return page.html(
        TEMPLATE,
        {},
        {
            "data": grid_data(rows, ranking, about.measure, about.floor, pictures),
            "answer": answer(rows, ranking, about.measure),
            "rows": rows,
            "first": rows[0],
            "identities": page.identities(rows),
            "scope": _scope(rows),
            "reading": reading,
            "line_name": line_name,
            "interval": with_interval,
            "standings": {found.row.cell_digest: found for found in standings},
            "ranking": ranking,
            "measure": about.measure,
            "image_scores": shared_scores(rows),
            "why_no_fid_inf": why_no_fid_inf(rows[0]),
            "clipping": mixed_clipping(rows),
            "cell_digits": CELL_DIGITS,
            "cell_name": cell_name,
            "other_samplers": not all(map(is_ours, rows)),
            "best": cell_name(best),
            "classes": classes,
            "shown_classes": shown_classes(classes) if classes else [],
            **vars(about),
        },
    )


def _on_the_way(one: Trajectories) -> Predicted:
    arrays = store.get_arrays(one)
    return Predicted(arrays["x0"], tuple(arrays["t"].tolist()), one.calls)


def _scope(rows: Sequence[CellRow]) -> str:
    """What tells a grid from others of its checkpoint, in a few words."""
    lines = len({line_name(row) for row in rows})
    steps = ", ".join(map(str, sorted({row.steps for row in rows})))
    counts = " and ".join(str(n) for n in sorted({row.n_images for row in rows}))
    said = f"{lines} line{'s' if lines > 1 else ''}"
    return f"{said}, S = {steps}, N = {counts}, {rows[0].extractor} features"


def _table_line(row: CellRow) -> dict[str, str | float | None]:
    """One line of Prefect's table: plain numbers and text."""
    return {
        "S": row.steps,
        "line": line_name(row),
        "network calls": row.nfe,
        "FID": round(row.fid, 3),
        "95 % interval": _interval(row.fid_low, row.fid_high),
        "FID_inf": None if row.fid_inf is None else round(row.fid_inf, 3),
        "95 % interval of FID_inf": _interval(row.fid_inf_low, row.fid_inf_high),
        "KID": None if row.kid is None else round(row.kid, 5),
        "95 % interval of KID": _interval(row.kid_low, row.kid_high, 5),
        **{column: round(getattr(row, column), 4) for column in score_digests(row)},
        "N": row.n_images,
        "seconds of a busy worker": round(row.sample_seconds, 1),
        "cell": row.cell_digest[:CELL_DIGITS],
    }


def _interval(low: float | None, high: float | None, digits: int = 2) -> str:
    return "-" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def _markdown(rows: list[CellRow], reading: list[str], place: str) -> str:
    """The report's core; names from data stand in code spans, where Markdown is not read."""
    first = rows[0]
    names = [first.checkpoint, first.dataset, first.split]
    checkpoint, dataset, split = (f"`{name.replace('`', '')}`" for name in names)
    head = f"# FID of {checkpoint} against {dataset} {split}\n\n{reading[0]}\n\n"
    steps = sorted({row.steps for row in rows})
    fids = {(line_name(r), r.steps): r for r in rows}
    table = "| | " + " | ".join(f"S = {s}" for s in steps) + " |\n|---" * 1 + "|---" * len(steps)
    table += "|\n"
    for line in dict.fromkeys(line_name(row) for row in rows):
        cells = [fids.get((line, s)) for s in steps]  # None: failed, or not asked for
        texts = [f"{c.fid:.2f} ({_interval(c.fid_low, c.fid_high)})" if c else "-"
                 for c in cells]  # fmt: skip
        table += f"| {line} | " + " | ".join(texts) + " |\n"
    protocol = (
        f"\nN = {first.n_images} images a cell, {first.n_reference or 'unknown'} real images, "
        f"{first.extractor} features, 95 % jackknife intervals.\n\n"
    ) + (f"Overridden: {first.overrides}.\n\n" if first.overrides else "")
    return (
        head + table + protocol + "\n\n".join(reading[1:]) + f"\n\nReport: {page.linked(place)}\n"
    )
