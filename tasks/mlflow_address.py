"""Where MLflow shows the runs; apart from what logs them, since MLflow takes seconds to import."""

from __future__ import annotations

import os

from ddim_core.redaction import redacted


def how_to_open() -> str:
    """Returns the command that shows the runs."""
    uri = redacted(os.environ["MLFLOW_TRACKING_URI"])
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
