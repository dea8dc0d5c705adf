"""The command `ddim init`: a team's ddim.toml and prefect.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from flows.cli.commands.command import command
from flows.requests.flat import Given
from flows.requests.grid import GridRequest


@dataclass(frozen=True)
class Place:
    """The command."""

    folder: Annotated[str, Field(description="Where both are written; empty is this folder.")] = ""


@dataclass(frozen=True, kw_only=True)
class InitCommand:
    """What a team's grids are asked for."""

    place: Place
    grid: GridRequest


def _init(_: InitCommand, asked: Given) -> None:
    """Write ddim.toml, whose defaults the commands take, and prefect.yaml, which serve deploys.

    What is given here stands in both; every other parameter of a grid stands in ddim.toml as a
    comment, with what it means.
    """
    from flows.team.writing import write

    folder = Path(asked.pop("folder", ""))
    for place in write(folder, asked):
        typer.echo(f"wrote {place}")


init = command(InitCommand, _init, heeds=None)
