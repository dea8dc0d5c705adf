"""MLflow's server in one process behind `SameOrigin`; started by `flows.servers.server`.

MLflow's own checks let pages of every other port of this machine change what it keeps, and its
assistant runs commands for whoever reaches loopback: that is closed. Run as
`python -m tasks.tracking.server --fd N --parent PID --names A,B`, with the database in
DDIM_MLFLOW_DATABASE and the artefacts' place in DDIM_MLFLOW_ARTIFACTS.
"""

from __future__ import annotations

import os

from starlette.types import ASGIApp

from tasks.machine.serving import serve
from tasks.storage.places import default_tracking_uri
from tasks.tracking.database import make_database

# What runs something or reaches out: nothing of it is needed to keep experiments.
APIS = ("/api/2.0", "/api/3.0", "/ajax-api/2.0", "/ajax-api/3.0")
OUTWARD = (
    "assistant", "demo", "gateway", "genai", "jobs", "mcp", "prompt-optimization", "scorer",
    "webhooks",
)  # fmt: skip
CLOSED = (
    "/gateway", *(f"{api}/mlflow/{subject}" for api in APIS for subject in OUTWARD),
    *(f"{api}/{subject}" for api in APIS for subject in OUTWARD),
)  # fmt: skip


def app() -> ASGIApp:
    """Makes MLflow's app with its database brought up, as `mlflow server` does."""
    from mlflow.server import constants, handlers

    database = os.environ["DDIM_MLFLOW_DATABASE"]
    proxied = "mlflow-artifacts:/"
    os.environ[constants.BACKEND_STORE_URI_ENV_VAR] = database
    os.environ[constants.ARTIFACT_ROOT_ENV_VAR] = proxied
    os.environ[constants.SERVE_ARTIFACTS_ENV_VAR] = "true"
    os.environ[constants.ARTIFACTS_DESTINATION_ENV_VAR] = os.environ["DDIM_MLFLOW_ARTIFACTS"]
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if database == default_tracking_uri():
        make_database()
    handlers.initialize_backend_stores(database, database, proxied)
    from mlflow.server.fastapi_app import app as made  # reads the environment when imported

    return made


if __name__ == "__main__":
    serve(app, closed=CLOSED)
