"""The commands `ddim lora style` and `ddim lora subject`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from flows.cli.commands.command import flow_command
from flows.requests.lora import StyleRequest, SubjectRequest

if TYPE_CHECKING:
    from flows.lora.scoring import LoraOutcome

lora = typer.Typer(help="Train a LoRA: a style or a subject.", no_args_is_help=True)


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
        typer.echo("")
        for sentence in scorecard.reading:
            typer.echo(sentence)
        typer.echo(f"\nreport:   {scorecard.report}")
        typer.echo(f"table:    {scorecard.table} (Parquet)")


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
