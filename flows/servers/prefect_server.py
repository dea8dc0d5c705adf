"""Prefect's server behind `SameOrigin`; started by `flows.servers.server`.

Run as `python -m flows.servers.prefect_server --fd N --parent PID --names A,B`. Prefect's own
settings in
the environment say the rest: password, CORS, database, and whether it is a temporary one.
"""

from __future__ import annotations

from starlette.types import ASGIApp

from tasks.machine.serving import serve


def app() -> ASGIApp:
    """Makes Prefect's app, with all its services."""
    from prefect.server.api.server import create_app

    return create_app(final=True)


if __name__ == "__main__":
    serve(app)
