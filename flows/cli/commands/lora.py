"""The commands `ddim lora style`, `ddim lora subject` and `ddim lora score`."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from ddim_core.common.printable import printable
from flows.cli.commands.command import command, flow_command, no_lines_on_the_way, run_shown
from flows.requests.flat import Given, Option
from flows.requests.lora import StyleRequest, SubjectRequest
from flows.requests.lora_score import LoraScoreRequest

if TYPE_CHECKING:
    from flows.lora.scoring import LoraOutcome, Scorecard
    from flows.lora_score import LoraScore

lora = typer.Typer(
    help="Train a LoRA, a style or a subject; score those of others.", no_args_is_help=True
)


def _settle_style(request: StyleRequest) -> None:
    from flows.lora.plan import style_plan

    style_plan(request.settled())


def _settle_subject(request: SubjectRequest) -> None:
    from flows.lora.plan import subject_plan

    subject_plan(request.settled())


def _show(outcome: LoraOutcome) -> None:
    made, scorecard = outcome.lora, outcome.scorecard
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


@dataclass(frozen=True)
class HowToShow:
    """The command."""

    as_json: Annotated[
        bool, Field(description="Print what came of it as JSON, rows included."), Option("--json")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ScoreCommand(LoraScoreRequest):
    """LoRAs that somebody else trained, and how what came of it is shown."""

    how: HowToShow


def _score(request: ScoreCommand, asked: Given) -> None:
    """Score LoRAs that somebody else trained: every epoch at every scale, and which to ship."""
    asked = {name: value for name, value in asked.items() if name not in vars(request.how)}
    with no_lines_on_the_way() if request.how.as_json else nullcontext():
        outcome: LoraScore = run_shown(request.line, "lora_score", asked)
    if not request.how.as_json:
        _show_scorecard(outcome.scorecard)
        return
    from tasks.lora.scoring.table import read_lora_table

    told = asdict(outcome)
    rows = read_lora_table().set_index("row_digest").loc[list(outcome.scorecard.rows)]
    text = rows.reset_index().to_json(orient="records", date_format="iso")
    typer.echo(json.dumps({**told.pop("scorecard"), **told, "rows": json.loads(text)}, indent=2))


lora.command("style")(
    flow_command(
        StyleRequest,
        "lora_style",
        "Train a style on captioned images, check it, and export it for diffusers and web UIs.",
        _show,
        _settle_style,
    )
)
lora.command("subject")(
    flow_command(
        SubjectRequest,
        "lora_subject",
        "Train a LoRA on a few images of one subject (DreamBooth), check it, and export it.",
        _show,
        _settle_subject,
    )
)
lora.command("score")(command(ScoreCommand, _score, lambda _: LoraScoreRequest))
