"""Verdicts and curves of what is scored already; nothing is sampled here.

What writes their pages is slow to import, and taken once it is known whose rows are meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import is_regular
from ddim_core.decisions.checkpoints.lora_rows import (
    digests_over,
    judged_weights,
    loras_named,
    rows_of_loras,
)
from ddim_core.decisions.checkpoints.twins import beyond_training_noise, rows_like
from ddim_core.decisions.checkpoints.verdict import (
    IDENTICAL,
    Verdict,
    judge,
    one_row_a_cell,
    protocol_of,
)
from ddim_core.decisions.measure import FID, Measure, measure_of
from ddim_core.decisions.place import names_cell
from ddim_core.decisions.row import CellRow
from ddim_core.reports.verdicts.sentences import by_checkpoint, first_scored
from ddim_core.safe_files.loras.files import content_digests
from flows.grid.named import LEAST_DIGITS, rows_called, twins_called, weights_called
from tasks.checkpoints.addresses import is_local
from tasks.reports.records import ComparedPair, FiledVerdict
from tasks.reports.verdict import about_one, about_pair, previous

Rows = list[CellRow]
Found = tuple[ComparedPair, Verdict, Rows, Rows]


def verdict_of(
    table: Rows,
    new: str,
    against: str = "",
    at: str = "",
    margin: float = 0.0,
    remarks: Sequence[str] = (),
    decide_by: str = FID.name,
    twins: Sequence[str] = (),
    command: str = "",
) -> FiledVerdict:
    """Judges a checkpoint by the rows that it and another one have in the table.

    Args:
        table: Its rows.
        new: A checkpoint's folder, its name in the table, or the start of a digest; or a LoRA's
            file or its name, of which the rows with it over one base count.
        against: The other one, or an MLflow address; empty takes the one scored before it.
        at: Operating point that decides, S and eta, such as `20,0.5`; empty chooses the best.
        margin: Largest difference that does not count.
        remarks: What is to be said of the table's rows.
        decide_by: Name of the measure that decides.
        twins: Trainings of one recipe, named likewise or by patterns; a difference that two of
            them may have counts as none.
        command: What asks for it, for the page's end.

    Raises:
        ValueError: If a checkpoint has no rows, or none that can be compared, or a row has no
            value of what decides; or if the twins are not trainings of one recipe, scored alike.
    """
    measure = measure_of(decide_by)
    table, new, against, twins = _told_of_loras(table, new, against, twins)
    trainings = twins_called(twins, table)
    weights = weights_called(new, table)
    if against and weights == weights_called(against, table):
        about = about_one(_called(new, table), _called(against, table), weights)
        found: Found = about, IDENTICAL, [], []
    else:
        found = _judged(table, new, against, at, margin, measure, trainings)
    from tasks.reports.verdict_page import file_verdict

    return file_verdict(*found, bool(at), remarks, command=command)


def _judged(
    table: Rows,
    new: str,
    against: str,
    at: str,
    margin: float,
    measure: Measure,
    trainings: list[Rows],
) -> Found:
    """Who is compared, the verdict, the new one's rows, and all that are comparable."""
    theirs = rows_called(against, table) if against else []
    ours = _protocol_of(rows_called(new, table), at, theirs)
    alike = [row for row in table if protocol_of(row) == protocol_of(ours[0])]
    alike = one_row_a_cell(alike, ours[0].device)
    if against:
        theirs = [row for row in theirs if row in alike] or theirs  # judge names what differs
    else:
        theirs = previous(ours, alike)
        if not theirs:
            raise ValueError(
                f"no checkpoint was scored before {new!r} by its grid and protocol; say which with "
                "--against"
            )
    verdict = judge(ours, theirs, at, margin=margin, measure=measure)
    if trainings:
        verdict = beyond_training_noise(verdict, [rows_like(t, ours[0]) for t in trainings])
    return about_pair(ours, theirs), verdict, ours, alike


def curve_of(
    table: Rows,
    names: str,
    cells: Sequence[str],
    remarks: Sequence[str] = (),
    twins: Sequence[str] = (),
    command: str = "",
) -> str:
    """Draws FID with its intervals over checkpoints; returns the page's place.

    Args:
        table: Its rows.
        names: Pattern of the checkpoints' names in the table.
        cells: Cells to draw, S and eta, such as `20,0.5`; empty takes the five best.
        remarks: What is to be said of the table's rows.
        twins: Trainings of one recipe, by name or pattern: how far they lie apart is drawn.
        command: What asks for it, for the page's end.

    Raises:
        ValueError: If no row matches, or the twins are not trainings of one recipe.
    """
    rows = [row for row in table if fnmatch(row.checkpoint, names)]
    if not rows:  # of LoRA files, over the base that was scored last
        newest = max(table, key=lambda row: row.created_at).weights_digest if table else ""
        rows = [row for row in rows_of_loras(table, newest) if fnmatch(row.checkpoint, names)]
    if not rows:
        raise ValueError(
            f"no checkpoint in the table is named {names!r:.200}; `ddim table` lists them"
        )
    newest = max(by_checkpoint(rows), key=first_scored)[0].weights_digest
    of_newest = [row for row in rows if row.weights_digest == newest]
    last = _protocol_of(of_newest, cells[0] if cells else "", [])
    for cell in cells:
        if not any(names_cell(row, cell) for row in last):
            raise ValueError(f"the last checkpoint has no cell {cell!r}; give S and eta, as 20,0.5")
    alike = [row for row in rows if protocol_of(row) == protocol_of(last[0])]
    alike = one_row_a_cell(alike, last[0].device)
    trainings = [rows_like(rows, last[0]) for rows in twins_called(twins, table)]
    from tasks.reports.curve import write_curve

    return write_curve(last, alike, cells, remarks, trainings, command)


def _told_of_loras(
    table: Rows, new: str, against: str, twins: Sequence[str]
) -> tuple[Rows, str, str, Sequence[str]]:
    """The same question, where two LoRA files are meant: of rows told as theirs, on the base on
    which both were scored, and which the new one was scored on last."""
    ours, theirs = _lora(new, table), _lora(against, table)
    if not (ours or theirs):
        return table, new, against, twins
    if against and not (ours and theirs):
        lora, other = (new, against) if ours else (against, new)
        raise ValueError(
            f"{lora!r} is a LoRA and {other!r} a checkpoint; compare two LoRAs, or two cells by "
            "`ddim table --compare --cell`"
        )
    bases = [
        {row.weights_digest: row.created_at for row in table if lora in digests_over(row)}
        for lora in (ours, theirs or ours)
    ]
    both = bases[0].keys() & bases[1].keys()
    if not both:
        raise ValueError(f"{new!r} and {against!r} have no base in common; score both on one")
    base = max(both, key=lambda weights: bases[0][weights])
    names = [judged_weights(base, lora) if lora else "" for lora in (ours, theirs)]
    found = [(name, _lora(name, table)) for name in twins]
    twins = [judged_weights(base, lora) if lora else name for name, lora in found]
    return rows_of_loras(table, base), names[0], names[1], twins


def _lora(name: str, table: Rows) -> str:
    """The digest of a LoRA given by its file, its name or a digest's start; "" if it is none."""
    place = Path(name)
    if not name or any(row.checkpoint == name for row in table):
        return ""
    if place.suffix == ".safetensors" and is_regular(place):
        found = {file_digest(place), *content_digests(place)} & {
            d for row in table for d in digests_over(row)
        }
    else:
        found = loras_named(table, name)
        if len(name) >= LEAST_DIGITS and not found:
            found = {d for row in table for d in digests_over(row) if d.startswith(name)}
    if len(found) > 1:
        several = ", ".join(sorted(lora[:12] for lora in found))
        raise ValueError(f"{name!r} names several LoRAs; give the digest of one: {several}")
    return found.pop() if found else ""


def _called(name: str, table: Rows) -> str:
    told = (row.checkpoint for row in table if row.weights_digest == name)
    return Path(name).resolve().name if is_local(name) else next(told, name)


def _protocol_of(rows: Rows, at: str, others: Rows) -> Rows:
    """A checkpoint's rows of one protocol and one device: the one scored last, of those by which
    the other checkpoint was scored too, and that have the asked cell, where there are such."""
    groups: dict[tuple[object, ...], Rows] = {}
    for row in rows:
        groups.setdefault((protocol_of(row), row.device), []).append(row)
    shared = {protocol_of(row) for row in others}
    devices = {(protocol_of(row), row.device) for row in others}

    def rank(group: Rows) -> tuple[bool, bool, bool, str]:
        alike, has_cell = protocol_of(group[0]), not at or any(names_cell(r, at) for r in group)
        on_both = (alike, group[0].device) in devices
        return alike in shared, has_cell, on_both, max(row.created_at for row in group)

    chosen = max(groups.values(), key=rank)
    return one_row_a_cell(chosen, chosen[0].device)
