"""The command `ddim init`: a team's ddim.toml and prefect.yaml."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from ddim_core.text2image.embedded import embedded_base
from flows.cli.commands.command import command
from flows.requests.flat import Given
from flows.requests.grid import GridRequest
from flows.requests.models import TOY_RESOLUTIONS


@dataclass(frozen=True)
class Place:
    """The command."""

    folder: Annotated[str, Field(description="Where both are written; empty is this folder.")] = ""


@dataclass(frozen=True, kw_only=True)
class TeamGrid(GridRequest):
    """A grid of checkpoints that are yet to come, where none is named and no model can be trained.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    def __post_init__(self) -> None:
        real, model = self.real, self.model
        if model.checkpoint or real.resolution or real.dataset in TOY_RESOLUTIONS:
            super().__post_init__()
            return
        groups = {field.name: getattr(self, field.name) for field in fields(self)}
        some = replace(model, checkpoint=str(embedded_base()))  # whichever: it is not opened
        GridRequest(**groups | {"model": some})


@dataclass(frozen=True, kw_only=True)
class InitCommand:
    """What a team's grids are asked for."""

    place: Place
    grid: TeamGrid


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
