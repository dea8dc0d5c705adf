"""Trains the small model of a data set, as a checkpoint that diffusers opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.grid.toy_training import submit_training
from flows.requests.flat import flat
from flows.requests.toy import ToyRequest
from flows.run.naming import flow_name
from tasks.storage.store import check_writable, get_folder


@flow(name="train-toy", flow_run_name=flow_name, validate_parameters=False)
@flat
def train_toy(request: ToyRequest) -> dict[str, Any]:
    """Trains a small U-Net on a data set; goes on where a killed run stopped.

    Returns:
        The checkpoint's folder, for `DDPMPipeline.from_pretrained`, and its digest.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    trained = submit_training(request).result()
    folder: Path = get_folder(trained)
    return {"checkpoint": str(folder), "digest": trained["artifact"]}
