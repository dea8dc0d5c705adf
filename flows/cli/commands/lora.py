"""The commands `ddim lora style`, `ddim lora subject` and `ddim lora score`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ddim_core.common.printable import printable
from flows.cli.commands.command import flow_command
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

    style_plan(request)


def _settle_subject(request: SubjectRequest) -> None:
    from flows.lora.plan import subject_plan

    subject_plan(request)


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


def _show_score(outcome: LoraScore) -> None:
    _show_scorecard(outcome.scorecard)


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
lora.command("score")(
    flow_command(
        LoraScoreRequest,
        "lora_score",
        "Score LoRAs that somebody else trained: every epoch at every scale, and which to ship.",
        _show_score,
    )
)
