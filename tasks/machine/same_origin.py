"""The door of our servers: what a web page of another origin sends is refused, whoever opened it.

A browser sends a page's requests to loopback as readily as anywhere. Each of these has to be so:
the Host header names this server (else a name that was rebound to 127.0.0.1 is another origin's),
a request that a page makes comes from a page of this server (`Origin`, `Sec-Fetch-Site`), and the
body of a POST is not of a type that pages may send unasked (`text/plain`, forms, none).
Websockets are held to the same, but for the body.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
# What a page may send to another origin without asking (the Fetch standard's safelist), or nothing.
SIMPLE_TYPES = ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data")
SLASHES = re.compile("/+")
OURS = ("same-origin", "none")  # of Sec-Fetch-Site; "none": typed in by a person


class SameOrigin:
    """ASGI middleware that lets in what people, programs and this server's own pages ask.

    Args:
        app: What is guarded.
        names: Names and addresses of this server, without ports.
        closed: Beginnings of paths that are answered to nobody.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str], closed: Sequence[str] = ()) -> None:
        self.app = app
        self.closed = tuple(closed)
        hosts = [f"[{name}]" if ":" in name else name for name in names]
        self.checked = TrustedHostMiddleware(self._checked, [*hosts, *names], www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 400 for a foreign Host, 403 for a foreign page, 415 for a page's plain text."""
        await self.checked(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] in ("http", "websocket"):
            refusal = self._refusal(scope, Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        # Flask takes several slashes for one.
        if self.closed and SLASHES.sub("/", scope["path"]).startswith(self.closed):
            return PlainTextResponse("closed here", status_code=403)
        if _of_another_page(scope, headers):
            return PlainTextResponse("a page of another origin may not ask this", status_code=403)
        if scope.get("method") == "POST" and _has_body(headers):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind in SIMPLE_TYPES:
                return PlainTextResponse("send application/json", status_code=415)
        return None


def _of_another_page(scope: Scope, headers: Headers) -> bool:
    origins = headers.getlist("origin")
    if origins and origins != [f"{_scheme(scope)}://{headers.get('host')}"]:
        return True
    site = headers.get("sec-fetch-site", "none")
    followed_link = (
        scope.get("method") == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )
    return site not in OURS and not followed_link


def _scheme(scope: Scope) -> str:
    """A page's scheme; behind a proxy that ends TLS, uvicorn takes it from X-Forwarded-Proto."""
    return {"ws": "http", "wss": "https"}.get(scope["scheme"], str(scope["scheme"]))


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def names_of(host: str) -> list[str]:
    """What a server that listens on an address may be called, and what DDIM_HOSTS adds."""
    more = [name.strip() for name in os.environ.get("DDIM_HOSTS", "").split(",") if name.strip()]
    if host in LOOPBACK_NAMES:
        return [*LOOPBACK_NAMES, *more]
    if host not in EVERYWHERE:
        return [host, *more]
    own = socket.gethostname()
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(own, None)}
    except OSError:  # a name that its own machine cannot resolve
        addresses = set()
    return [*LOOPBACK_NAMES, own, socket.getfqdn(), *sorted(addresses), *more]
