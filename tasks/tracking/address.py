"""Where MLflow shows the runs; apart from what logs them, since MLflow takes seconds to import."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from ddim_core.common.redaction import redacted

NO_PLACES = ("databricks", "databricks-uc")  # services, by their names alone


def how_to_open() -> str:
    """Returns the command that shows the runs."""
    uri = redacted(os.environ["MLFLOW_TRACKING_URI"])
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def why_not_logged() -> str:
    """Returns why MLflow took nothing, as far as its address alone tells."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if urlsplit(uri).scheme not in ("", "file") or uri in NO_PLACES:
        return "MLflow could not be reached"
    return (
        f"MLflow refuses file stores, and MLFLOW_TRACKING_URI={redacted(uri)!r} is one; set it to "
        "sqlite:///PATH/mlflow.db or a server's http address"
    )
