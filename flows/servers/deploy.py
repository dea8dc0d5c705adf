"""`prefect work-pool create` and `prefect deploy --all`, in one process: Prefect's imports alone
take seconds.

`python -m flows.servers.deploy POOL TEMPLATE` is that process.
"""

from __future__ import annotations

import sys


def prefect(*words: str) -> None:
    """Does what the command `prefect WORDS` does.

    Raises:
        SystemExit: If it fails.
    """
    from prefect.cli import app

    sys.argv = ["prefect", *words]
    try:
        app()
    except SystemExit as ended:
        if ended.code:
            raise


if __name__ == "__main__":
    pool, template = sys.argv[1:]
    make = ("--type", "process", "--overwrite", "--base-job-template", template)
    prefect("work-pool", "create", pool, *make)
    prefect("--no-prompt", "deploy", "--all")
