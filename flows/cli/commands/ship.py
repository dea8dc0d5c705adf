"""The command `ddim ship`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.commands.options import one_sentence, option, require_writable, stop


def ship(
    cell: Annotated[str, typer.Argument(help="A cell's digest, or a beginning of it.")],
    out: Annotated[
        Path | None, option("The new folder to write [shipped/CELL below DDIM_DATA].")
    ] = None,
    push: Annotated[
        Path | None, option("Also write a copy of the pipeline with the scheduler in it.")
    ] = None,
) -> None:
    """Write a cell's setting for plain diffusers, with its evidence and a script that redraws it.

    The script is run in a fresh process without this project; only if its images are the cell's,
    within one level of 255, is anything handed over.
    """
    with one_sentence():
        require_writable()
        from flows.run import waiting
        from tasks.cells.lookup import find_cell
        from tasks.storage import stages

        find_cell(cell)  # a wrong digest is told before the networks are imported
        with waiting.shown(f"ship: {cell}"):
            stages.begin("importing the networks")
            from tasks.shipping.push import NotPushedError
            from tasks.shipping.ship import NotTheSameError, ship_cell

            try:
                done = ship_cell(cell, out, push)
            except (NotTheSameError, NotPushedError) as error:
                stop(str(error), 1)
        typer.echo(f"{done.folder}: {', '.join(done.files)}")
        apart = "equal" if not done.levels else f"within {done.levels} level of 255"
        typer.echo(f"{done.n_images} images drawn again in a fresh process: {apart}")
        if not done.scheduler:
            typer.echo("diffusers has no scheduler that does this; README.md says why")
        if done.pushed:
            typer.echo(f"pipeline with {done.scheduler}: {done.pushed}")
