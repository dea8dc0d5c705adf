"""Tells Prefect that a checkpoint is there: the event `checkpoint.created`."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event, Resource

from ddim_core.checkpoints.identity import weights_digest
from ddim_core.common.redaction import redacted

EVENT = "checkpoint.created"


def announce(checkpoint: Path) -> str:
    """Sends the event for a whole checkpoint; returns its content digest.

    Raises:
        ValueError: If it is no checkpoint, or PREFECT_API_URL is not set: only a server that stays
            can have a trigger.
        ConnectionError: If the server does not take the event.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise ValueError(
            "PREFECT_API_URL is not set, so there is no server to tell; `make serve` starts one "
            "and says how to set it"
        )
    weights = weights_digest(checkpoint)
    path = str(checkpoint.resolve())
    resource = Resource({"prefect.resource.id": f"ddim.checkpoint.{weights[:32]}"})
    event = Event(event=EVENT, resource=resource, payload={"path": path, "weights": weights})
    with get_client(sync_client=True) as client:
        try:
            answer = client._client.post("/events", json=[event.model_dump(mode="json")])
            answer.raise_for_status()
        except httpx.HTTPError as error:
            said = redacted(
                f"the server at {os.environ['PREFECT_API_URL']} takes no event: {error}"
            )
            raise ConnectionError(said) from None
    return weights
