"""`ddim deploy-run NAME`: the short form of `prefect deployment run NAME/NAME`."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

ANY_MORE = {"allow_extra_args": True, "ignore_unknown_options": True}


def deploy_run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="fid-grid, swiss-roll, train-toy, paper, ...")],
) -> None:
    """Start a deployment; what follows the name goes to Prefect, such as -p steps='[10,20]'."""
    deployment = name if "/" in name else f"{name}/{name}"
    command = [sys.executable, "-m", "prefect", "deployment", "run", deployment, *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
