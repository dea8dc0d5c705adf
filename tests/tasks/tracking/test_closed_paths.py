"""What of MLflow's server is answered to nobody: what makes it reach out or run something."""

from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from tasks.machine.same_origin import SameOrigin
from tasks.tracking.server import CLOSED


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/2.0/mlflow/webhooks", 403),
        ("/api/2.0/mlflow/webhooks/1/test", 403),
        ("/ajax-api/2.0/mlflow/webhooks", 403),
        ("http://testserver//api/2.0/mlflow/webhooks", 403),
        ("/api///2.0/mlflow//webhooks/1/test", 403),
        ("/ajax-api/2.0/mlflow/gateway-proxy", 403),
        ("/ajax-api/3.0/mlflow/gateway/endpoints/create", 403),
        ("/api/3.0/mlflow/prompt-optimization/jobs", 403),
        ("/api/3.0/mlflow/scorers/register", 403),
        ("/ajax-api/3.0/jobs/1", 403),
        ("/api/2.0/mlflow/runs/create", 200),
        ("/ajax-api/2.0/mlflow/registered-models/create", 200),
    ],
)
def test_what_makes_mlflow_call_other_addresses_is_closed(path: str, status: int) -> None:
    guarded = SameOrigin(PlainTextResponse("reached"), ["testserver"], CLOSED)
    assert TestClient(guarded).post(path, json={}).status_code == status
