"""The README of a shipped setting: how to draw with it, and why it was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.shipping.evidence import Compared, Evidence

MOST_SHOWN = 12  # rows of the comparison; all of them are in evidence.json


@dataclass(frozen=True)
class Plain:
    """How plain diffusers draws with a setting.

    Attributes:
        scheduler: The class of its scheduler; empty where diffusers has none that does it.
        snippet: The lines that draw; empty where there are none.
        form: A sentence on what an image is drawn for, in which form.
        notes: Sentences on what is to be known besides.
    """

    scheduler: str
    snippet: str
    form: str
    notes: tuple[str, ...]


def readme(evidence: Evidence, plain: Plain, folder: str, n_images: int) -> str:
    """Returns the text.

    Args:
        evidence: Of the cell.
        plain: How it is drawn.
        folder: The checkpoint's, as the lines open it.
        n_images: How many images the script draws.
    """
    row = evidence.row
    how = plain.scheduler or "the loop in sample.py"
    parts = [
        f"# {_line(row)}",
        f"The sampler setting to ship for the checkpoint {row.checkpoint} "
        f"({row.checkpoint_digest[:12]}): {how}, {row.nfe} network evaluations an image.",
    ]
    if plain.snippet:
        parts += [f"```python\n{plain.snippet}\n```"]
        parts += [f"Run them in this folder. The checkpoint is `{folder}`; put your copy's place."]
    parts += [plain.form]
    parts += ["\n".join(f"- {note}" for note in plain.notes)] if plain.notes else []
    parts += [
        f"`python sample.py` draws the cell's first {n_images} images again, with the noise that "
        "they were scored with; when it was shipped they were equal to the scored ones within one "
        "level of 255.",
        "## Evidence",
        _scores(row),
        _compared(evidence),
        f"Cell {row.cell_digest}. `evidence.json` has all of it for programs.",
    ]
    return "\n\n".join(parts) + "\n"


def _line(row: CellRow) -> str:
    return f"{cell_name(row)}: {row.checkpoint}"


def _scores(row: CellRow) -> str:
    fid_inf = with_interval(row.fid_inf, row.fid_inf_low, row.fid_inf_high)
    error = "" if row.kid_se is None else f" +- {1000 * row.kid_se:.2f}"
    real = row.n_reference or "unknown"
    kid = "-" if row.kid is None else f"{1000 * row.kid:.2f}{error}"
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| FID, 95 % interval | {with_interval(row.fid, row.fid_low, row.fid_high)} |",
            f"| FID at infinitely many images | {fid_inf} |",
            f"| KID x 1000 | {kid} |",
            f"| images | {row.n_images} generated, {real} real, seed {row.seed} |",
            f"| features | {row.extractor}, resize {row.resize} |",
            f"| reference | {row.dataset} {row.split}, {row.reference_digest[:12]} |",
            f"| checkpoint | {row.checkpoint}, {row.checkpoint_digest} |",
            f"| network evaluations an image | {row.nfe} |",
            f"| drawn on | {row.device}, {row.dtype} |",
        ]
    )


def _compared(evidence: Evidence) -> str:
    if not evidence.compared:
        return f"Compared: {evidence.why_none}."
    shown, n = evidence.compared[:MOST_SHOWN], len(evidence.compared)
    more = f" The {len(shown)} of lowest FID are shown." if len(shown) < n else ""
    head = (
        f"Compared with the {n} other rows of its protocol and noise, as pairs: FID of this cell "
        "minus FID of the other, its 95 % interval and p, both corrected for all pairs of these "
        f"rows. Below 0 this cell is better.{more}"
    )
    table = ["| other cell | FID | evaluations | difference | 95 % interval | p corrected | |"]
    table += ["|---|---|---|---|---|---|---|"]
    return "\n\n".join([head, "\n".join([*table, *_lines(shown)])])


def _lines(shown: Sequence[Compared]) -> list[str]:
    return [
        f"| {other.name}, {other.checkpoint} ({other.cell[:10]}) | {other.fid:.2f} | {other.nfe} | "
        f"{other.difference:+.3f} | [{other.low:+.3f}, {other.high:+.3f}] | {other.p_adjusted:.2g} "
        f"| {other.verdict} |"
        for other in shown
    ]
