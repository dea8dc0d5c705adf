"""A verdict as people meet it: one HTML file that opens from disk, and Markdown in Prefect's UI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from ddim_core.common.foreign import Json
from ddim_core.decisions.by_image import shared_scores
from ddim_core.decisions.checkpoints.verdict import Verdict
from ddim_core.decisions.measure import Measure
from ddim_core.decisions.row import CellRow, cell_name, line_name, score_shards
from ddim_core.reports.verdicts.sentences import best_of, by_checkpoint, read_verdict, signed
from tasks.cells.lookup import first_images, real_images
from tasks.image_scores.judge import values_of
from tasks.reports import page
from tasks.reports.frame import charts
from tasks.reports.frame.grid_data import scored, told_id
from tasks.reports.frame.pictures import PAGE_IMAGES, Pictures, picture_data
from tasks.reports.records import ComparedPair, FiledVerdict
from tasks.reports.verdict import write_verdict
from tasks.storage import places, store
from tasks.storage.naming import run_name

TEMPLATE = Path(__file__).with_suffix(".html")
MOST_CURVES = 5
Pictured = tuple[CellRow, str]
MOST_PICTURED = 3  # cells whose pictures are compared: the operating point, then the best


@task(name="publish-verdict", task_run_name=run_name("publish-verdict"))
def publish_verdict(
    about: ComparedPair,
    verdict: Verdict,
    rows: Sequence[CellRow],
    comparable: Sequence[CellRow],
    given: bool = False,
    remarks: Sequence[str] = (),
    grid: str = "",
    command: str = "",
) -> FiledVerdict:
    """Files a verdict, as `file_verdict`, and shows it as a Prefect artifact."""
    filed = file_verdict(about, verdict, rows, comparable, given, remarks, grid, command)
    page.show("verdict", _markdown(about, verdict, filed.sentences, filed.page))
    return filed


def file_verdict(
    about: ComparedPair,
    verdict: Verdict,
    rows: Sequence[CellRow],
    comparable: Sequence[CellRow],
    given: bool = False,
    remarks: Sequence[str] = (),
    grid: str = "",
    command: str = "",
) -> FiledVerdict:
    """Writes a verdict's rows, and its page to reports/verdict-<digest>/.

    Args:
        about: Both checkpoints.
        verdict: What was found.
        rows: The new checkpoint's rows.
        comparable: Rows of all checkpoints with the same cells and protocol, for the curve.
        given: Whether the operating point was asked for.
        remarks: What is to be said of the table's rows: unverified, left out.
        grid: Folder of the page of the new checkpoint's grid, where that is yet to be written.
        command: What asks for it, for the page's end.
    """
    identity = write_verdict(about, verdict, rows)
    against = [cell.baseline for cell in verdict.cells]
    sentences = read_verdict(verdict, rows, [against, rows] if rows else [])
    text = _page(about, identity, verdict, rows, comparable, given, sentences, remarks, grid)
    place = page.put(f"verdict-{identity[:12]}", page.told_at_the_end(text, command).encode())
    point = verdict.point
    return FiledVerdict(
        digest=identity,
        page=place,
        call=verdict.call,
        sentences=sentences,
        against=about.against,
        point=point.name if point else "",
        difference=point.difference if point else None,
    )


def _page(
    about: ComparedPair,
    identity: str,
    verdict: Verdict,
    rows: Sequence[CellRow],
    comparable: Sequence[CellRow],
    given: bool,
    sentences: list[str],
    remarks: Sequence[str],
    grid: str,
) -> str:
    measure = verdict.measure
    drawn = [row for row in comparable if _is_alike(row, rows, measure)]
    history = by_checkpoint(drawn)
    if len(drawn) < len(comparable):
        left_out = f"{len(comparable) - len(drawn)} rows without {measure.name} by these weights"
        remarks = [*remarks, f"{left_out} are not in the course of the checkpoints"]
    lines = {"calls": charts.over_calls(rows, measure)} if rows else {}
    if rows and len(history) > 1:
        cells = chosen_cells(verdict, rows)
        lines["checkpoints"] = charts.over_checkpoints(history, cells, measure)
    pictures, why_none = pictured(_pairs(about, verdict, rows), measure)
    against = [cell.baseline for cell in verdict.cells]
    return page.html(
        TEMPLATE,
        {},
        {
            "why_no_pictures": why_none,
            "grids": _grids(about, rows, against, grid),
            "data": {
                "lines": lines,
                "differences": {"cells": charts.differences(verdict)},
                **pictures,
            },
            "about": about,
            "identities": page.identities([*against, *rows]),
            "verdict_digest": identity,
            "verdict": verdict,
            "rows": rows,
            "given": given,
            "reading": sentences,
            "remarks": remarks,
            "measure": measure,
            "trail": [best_of(rows, measure) for rows in history],
            "cell_name": cell_name,
        },
    )


def _pairs(about: ComparedPair, verdict: Verdict, rows: Sequence[CellRow]) -> list[Pictured]:
    """Of some cells the other checkpoint's and the new one's, side by side."""
    names = chosen_cells(verdict, rows)[:MOST_PICTURED] if rows else []
    chosen = sorted(
        (cell for cell in verdict.cells if cell.name in names), key=lambda c: names.index(c.name)
    )
    old = called(about.against, about.against_training_step)
    new = called(about.checkpoint, about.training_step)
    return [of for pair in chosen for of in ((pair.baseline, old), (pair.new, new))]


def pictured(cells: Sequence[Pictured], measure: Measure) -> tuple[Json, str]:
    """Returns what a page's script compares, the first two of some cells at first: their first
    images, all from one noise, beside the nearest real ones; empty where they are not all there,
    and then why.

    Args:
        cells: Rows, each with a name of its checkpoint, if it needs one.
        measure: What is said of each.
    """
    batches, told, orders = {}, [], {}
    try:
        for row, of in cells:
            batches[told_id(row)] = first_images(row, PAGE_IMAGES)
            line = ", ".join(filter(None, (of, line_name(row))))
            told.append({
                "id": told_id(row), "name": ", ".join(filter(None, (of, cell_name(row)))),
                "line": line, "steps": row.steps, "note": scored(row, measure),
            })  # fmt: skip
        for column in shared_scores([row for row, _ in cells]):
            shards = {told_id(row): score_shards(row).get(column) for row, _ in cells}
            known = {id_: values_of(refs).tolist() for id_, refs in shards.items() if refs}
            if len(known) == len(shards):
                orders[column] = known
    except (ValueError, store.StoreError) as error:
        return {"images": None}, f"Without pictures: {error}."
    if len(batches) < 2 or len({batch.shape[1:] for batch in batches.values()}) > 1:
        return {"images": None}, ""
    left, right = list(batches)[:2]
    real = real_images(cells[0][0])
    images = picture_data(Pictures(batches, left, right, orders, real=real))
    return {"cells": told, "images": images}, ""


def _grids(
    about: ComparedPair, ours: Sequence[CellRow], theirs: Sequence[CellRow], grid: str
) -> list[tuple[str, str]]:
    """The pages of both checkpoints' grids, where there are such or `grid` will be one: of which
    checkpoint, and the folder."""
    found = []
    for name, step, rows, coming in (
        (about.against, about.against_training_step, theirs, ""),
        (about.checkpoint, about.training_step, ours, grid),
    ):
        folder = coming or page.grid_folder(row.cell_digest for row in rows)
        if coming or (rows and store.names_below(places.data_url("reports", folder))):
            found.append((called(name, step), folder))
    return found


def called(name: str, step: int | None) -> str:
    """A checkpoint's name, with the training step that tells it from others of that name."""
    return name if step is None else f"{name} (step {step})"


def _is_alike(row: CellRow, rows: Sequence[CellRow], measure: Measure) -> bool:
    """Whether a row's value can stand beside those of others in one curve."""
    return measure.is_known(row) and measure.weights(row) == measure.weights(rows[0])


def chosen_cells(verdict: Verdict, rows: Sequence[CellRow]) -> list[str]:
    """The cells whose course is drawn: the operating point, then the best ones of the new grid."""
    first = [verdict.point.name] if verdict.point else []
    ranked = [cell_name(row) for row in sorted(rows, key=verdict.measure.cost)]
    return list(dict.fromkeys([*first, *ranked]))[:MOST_CURVES]


def _markdown(about: ComparedPair, verdict: Verdict, sentences: list[str], place: str) -> str:
    """Names from data stand in code spans, where Markdown is not read."""
    new, against = (
        f"`{called(name, step).replace('`', '')}`"
        for name, step in (
            (about.checkpoint, about.training_step),
            (about.against, about.against_training_step),
        )
    )
    head = f"# {new} against {against}: {verdict.call}\n\n" + "\n\n".join(sentences)
    if not verdict.cells:
        return f"{head}\n\nVerdict: {page.linked(place)}\n"
    measure = verdict.measure
    table = f"| cell | {measure.title} | other | difference | p corrected | call |\n"
    table += "|---|---|---|---|---|---|\n"
    for cell in verdict.cells:
        p = "-" if cell.p_corrected is None else f"{cell.p_corrected:.2g}"
        table += (
            f"| {cell.name} | {measure.number(measure.value(cell.new))} "
            f"| {measure.number(measure.value(cell.baseline))} | {signed(cell, measure)} | {p} "
            f"| {cell.call} |\n"
        )
    return f"{head}\n\n{table}\nVerdict: {page.linked(place)}\n"
