"""The commands `ddim serve`, `ddim track` and `ddim guard`: servers, kept in step."""

from __future__ import annotations

from typing import Annotated

import typer

from ddim_core.common.checks import require_address
from flows.cli.commands.options import one_sentence, option, stop


def serve() -> None:
    """Start Prefect, MLflow, a worker and all deployments on this machine; Ctrl-C stops all.

    Deployed is what prefect.yaml of this folder lists (`ddim init` writes one), else what comes
    with the project. DDIM_HOST, DDIM_PREFECT_PORT and DDIM_MLFLOW_PORT say where they listen.
    """
    from flows.servers.serve import main

    raise typer.Exit(main())


def track(
    resend: Annotated[bool, option("Send what MLflow could not be told.")] = False,
) -> None:
    """Say what MLflow has not been told yet; with --resend, tell it."""
    with one_sentence():
        from tasks.tracking import outbox

        waiting, unsent = outbox.look()
        if not resend:
            typer.echo("\n".join([f"{len(waiting)} runs wait to be sent to MLflow", *waiting]))
        else:
            from tasks.tracking.address import how_to_open
            from tasks.tracking.client import resend as send_again

            sent, failed = send_again.fn()
            unsent |= failed
            typer.echo(f"{len(sent)} of {len(waiting)} runs sent to MLflow: {how_to_open()}")
    if unsent:
        stop("; ".join(f"{name} was not sent ({why})" for name, why in unsent.items()), 1)


def guard() -> None:
    """End the runs that a crash left Running, and have the Prefect server do so from now on."""
    with one_sentence():
        from flows.servers.server import use_server_that_stays

        api = use_server_that_stays()
        if api is None:
            raise ValueError(
                "PREFECT_API_URL is not set and no `make serve` of this DDIM_DATA runs; give the "
                "address of a Prefect server that stays, such as http://127.0.0.1:4200/api"
            )
        require_address("PREFECT_API_URL", api)
        from flows.servers.guard import SILENCE_SECONDS, end_lost_runs, install

        install()
        typer.echo(f"runs without a heartbeat for {SILENCE_SECONDS} s will end as Crashed")
        ended = end_lost_runs()
        typer.echo("\n".join([f"{len(ended)} lost runs ended", *ended]))
