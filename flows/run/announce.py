"""Tells Prefect that a checkpoint is there: the event `checkpoint.created`."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.events import Event, Resource

from ddim_core.checkpoints.identity import weights_digest
from ddim_core.common.redaction import redacted
from flows.servers.server import use_server_that_stays

EVENT = "checkpoint.created"


def announce(checkpoint: Path) -> str:
    """Sends the event for a whole checkpoint; returns its content digest.

    Raises:
        ValueError: If it is no checkpoint, or there is no server that stays, which alone can have a
            trigger.
        ConnectionError: If the server does not take the event.
    """
    if use_server_that_stays() is None:
        raise ValueError(
            "PREFECT_API_URL is not set and no `make serve` of this DDIM_DATA runs, so there is no "
            "server to tell; start one, or set it"
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
