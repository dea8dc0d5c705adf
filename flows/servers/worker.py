"""The worker of `make serve`: Prefect's own, which ends with its parent and takes its runs along.

Run as `python -m flows.servers.worker POOL PARENT`.
"""

from __future__ import annotations

import sys
import threading

from tasks.machine.serving import end_with

if __name__ == "__main__":
    pool, parent = sys.argv[1:]
    threading.Thread(target=end_with, args=(int(parent),), daemon=True).start()
    from prefect.cli import app

    sys.argv = ["prefect", "worker", "start", "--pool", pool]
    app()
