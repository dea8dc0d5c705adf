"""`prefect work-pool create` and `prefect deploy --all`, in one process: Prefect's imports alone
take seconds.

`python -m flows.servers.deploy` is that process.
"""

from __future__ import annotations

import sys
from pathlib import Path

POOL = "ddim"
# Without variables: no run can be made to execute something else than its flow.
TEMPLATE = Path(__file__).with_name("pool.json")
OURS = Path(__file__).with_name("prefect.yaml")


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


def deployments() -> Path:
    """Returns the list of deployments: prefect.yaml of this folder (`ddim init` writes one), or
    else the one that comes with the project."""
    here = Path("prefect.yaml")
    return here if here.is_file() else OURS


if __name__ == "__main__":
    make = ("--type", "process", "--overwrite", "--base-job-template", str(TEMPLATE))
    prefect("work-pool", "create", POOL, *make)
    prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(deployments()))
