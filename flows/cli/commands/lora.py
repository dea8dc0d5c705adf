"""The commands `ddim lora style`, `ddim lora subject` and `ddim lora score`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from ddim_core.common.printable import printable
from flows.cli.commands.command import HowToShow, command, run_as_asked
from flows.requests.flat import Given
from flows.requests.lora import StyleRequest, SubjectRequest
from flows.requests.lora_score import LoraScoreRequest

if TYPE_CHECKING:
    from flows.lora.scoring import LoraOutcome, Scorecard
    from flows.lora_score import LoraScore

lora = typer.Typer(
    help="Train a LoRA, a style or a subject; score those of others.", no_args_is_help=True
)


@dataclass(frozen=True, kw_only=True)
class StyleCommand(StyleRequest):
    """The style; and how what came of it is shown."""

    how: HowToShow


@dataclass(frozen=True, kw_only=True)
class SubjectCommand(SubjectRequest):
    """The subject's images; and how what came of it is shown."""

    how: HowToShow


@dataclass(frozen=True, kw_only=True)
class ScoreCommand(LoraScoreRequest):
    """LoRAs that somebody else trained, and how what came of it is shown."""

    how: HowToShow


def _style(request: StyleCommand, asked: Given) -> None:
    """Train a style on captioned images, check it, and export it for diffusers and web UIs."""
    _show(run_as_asked(request, "lora_style", asked), request.how)


def _subject(request: SubjectCommand, asked: Given) -> None:
    """Train a LoRA on a few images of one subject (DreamBooth), check it, and export it."""
    _show(run_as_asked(request, "lora_subject", asked), request.how)


def _score(request: ScoreCommand, asked: Given) -> None:
    """Score LoRAs that somebody else trained: every epoch at every scale, and which to ship."""
    outcome: LoraScore = run_as_asked(request, "lora_score", asked)
    if request.how.as_json:
        _show_json(outcome)
    else:
        _show_scorecard(outcome.scorecard)


def _show(outcome: LoraOutcome, how: HowToShow) -> None:
    made, scorecard = outcome.lora, outcome.scorecard
    if how.as_json:
        _show_json(outcome)
        return
    typer.echo(
        f"\ntrained: {made.training.steps} steps in {made.training.seconds:.0f} s, "
        f"peak memory {made.training.peak_memory_bytes / 2**30:.2f} GiB"
    )
    for layout, gate in made.gate.items():
        typer.echo(
            f"reloaded as {layout}: largest difference of a weight "
            f"{gate.largest_weight_difference:g}, of a pixel "
            f"{gate.largest_pixel_difference:g} of 255"
        )
    typer.echo(f"LoRA:     {made.folder} (files, pictures, model card)")
    if scorecard.report:
        _show_scorecard(scorecard)


def _show_scorecard(scorecard: Scorecard) -> None:
    typer.echo("")
    for sentence in scorecard.reading:
        typer.echo(printable(sentence))
    typer.echo(f"\nreport:   {scorecard.report}")
    typer.echo(f"table:    {scorecard.table} (Parquet)")


def _show_json(outcome: LoraOutcome | LoraScore) -> None:
    """What a flow returned, the scorecard's parts at the top, and its rows with all columns."""
    from tasks.lora.scoring.table import read_lora_table

    told, rows = asdict(outcome), list(outcome.scorecard.rows)
    text = "[]"
    if rows:
        found = read_lora_table().set_index("row_digest").loc[rows].reset_index()
        text = found.to_json(orient="records", date_format="iso")
    whole = {**told.pop("scorecard"), **told, "rows": json.loads(text)}
    typer.echo(json.dumps(whole, indent=2, default=str))


lora.command("style")(command(StyleCommand, _style, lambda _: StyleRequest))
lora.command("subject")(command(SubjectCommand, _subject, lambda _: SubjectRequest))
lora.command("score")(command(ScoreCommand, _score, lambda _: LoraScoreRequest))
