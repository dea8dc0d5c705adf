"""`ddim deploy-run NAME`: the short form of `prefect deployment run NAME/NAME`."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Annotated

import typer

from ddim_core.common.checks import nearest
from flows.cli.commands.options import stop
from flows.servers.deploy import deployments

DEPLOYMENT = re.compile(r"^  - name: (\S+)$", re.MULTILINE)
ANY_MORE = {"allow_extra_args": True, "ignore_unknown_options": True}


def deploy_run(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="fid-grid, swiss-roll, train-toy, paper, ...")],
) -> None:
    """Start a deployment; what follows the name goes to Prefect, such as -p steps='[10,20]'."""
    ours = DEPLOYMENT.findall(deployments().read_text(encoding="utf-8"))
    if "/" not in name and name not in ours:
        stop(f"there is no deployment {name!r}{nearest(name, ours)}; ours are {', '.join(ours)}", 2)
    from flows.servers.server import use_server_that_stays

    use_server_that_stays()
    deployment = name if "/" in name else f"{name}/{name}"
    command = [sys.executable, "-m", "prefect", "deployment", "run", deployment, *context.args]
    raise typer.Exit(subprocess.run(command, check=False).returncode)
