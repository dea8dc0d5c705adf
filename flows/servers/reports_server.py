"""The pages of reports, to read alone, behind `SameOrigin` and the password of `make serve`.

Run as `python -m flows.servers.reports_server --fd N --parent PID --names A,B` by
`flows.servers.server`, with `user:password` in DDIM_REPORTS_AUTH.
"""

from __future__ import annotations

import base64
import os
import secrets

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.machine.serving import serve
from tasks.reports.frame.index import write_index
from tasks.storage.places import local_dir

HEALTH = "/health"  # which needs no password, as Prefect's
ASK = {"WWW-Authenticate": 'Basic realm="ddim reports", charset="UTF-8"'}


class AsksForPassword:
    """ASGI middleware that lets in who says the password, as browsers do (RFC 7617)."""

    def __init__(self, app: ASGIApp, auth: str) -> None:
        self.app = app
        self.wanted = b"Basic " + base64.b64encode(auth.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 401 without the password."""
        if scope["type"] == "http" and scope["path"] != HEALTH:
            said = Headers(scope=scope).get("authorization", "").encode()
            if not secrets.compare_digest(said, self.wanted):
                refusal = PlainTextResponse("the password of make serve", 401, headers=ASK)
                return await refusal(scope, receive, send)
        return await self.app(scope, receive, send)


def app() -> ASGIApp:
    """Makes the app: files of reports/ alone, none of them a link that leads out of it."""
    folder = local_dir("reports")
    folder.mkdir(parents=True, exist_ok=True)
    write_index()  # which says so where there is no report yet
    return Starlette(
        routes=[
            Route(HEALTH, lambda request: PlainTextResponse("ok")),
            Mount("/", StaticFiles(directory=folder, html=True)),
        ],
        middleware=[Middleware(AsksForPassword, auth=os.environ["DDIM_REPORTS_AUTH"])],
    )


if __name__ == "__main__":
    serve(app)
