"""Runs one of our servers on a socket that its parent has bound, for as long as the parent lives.

The parent is `flows.servers.server`, which passes the socket's descriptor, its own process id and
the names that the server answers to. A parent that is killed in any way takes its servers with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from tasks.machine.same_origin import SameOrigin

LOOK_SECONDS = 0.5  # between looks at whether the parent lives
GRACE_SECONDS = 3.0  # to end in order; then at once


def serve(made: Callable[[], ASGIApp], closed: Sequence[str] = ()) -> None:
    """Serves an app behind `SameOrigin`, as the command line says: --fd, --parent and --names.

    Args:
        made: Makes the app; called once the parent is being watched.
        closed: Beginnings of paths that are answered to nobody.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--names", required=True)
    asked = parser.parse_args()
    threading.Thread(target=end_with, args=(asked.parent,), daemon=True).start()
    guarded = SameOrigin(made(), asked.names.split(","), closed)
    config = uvicorn.Config(
        guarded, lifespan="on", log_level="warning", timeout_graceful_shutdown=int(GRACE_SECONDS)
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=asked.fd)])


def end_with(parent: int) -> None:
    """Ends this process, and its group, when its parent has.

    Polled: the kernel's own signal for it (PR_SET_PDEATHSIG) is Linux's alone, and comes when the
    thread ends that started us, not its process.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)
