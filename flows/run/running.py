"""How a command runs a flow: on a server, seen to go on, and stopped whole."""

from __future__ import annotations

import atexit
import importlib
from collections.abc import Mapping
from typing import Any

from flows.run import stopping
from flows.servers.server import begin_server
from tasks.storage import stages


def run(flow: str, given: Mapping[str, Any]) -> Any:
    """Runs the flow `flows.NAME.NAME` and returns what it returns; shown inside `waiting.shown`.

    Prefect's server, where none is there, starts while the flow is imported.

    Args:
        flow: NAME.
        given: Its parameters; checked before, since from here on it takes seconds.
    """
    stages.begin("starting Prefect's server and importing")
    server = begin_server()
    # Before Prefect is imported, so that it runs after Prefect's own: that sends the last logs.
    atexit.register(server.stop)
    module = importlib.import_module(f"flows.{flow}")
    stages.begin("waiting for Prefect's server")
    server.wait()
    stages.begin(f"{flow.replace('_', ' ')} at work")
    try:
        return stopping.remember(getattr(module, flow))(**given)
    finally:
        stopping.forget()
