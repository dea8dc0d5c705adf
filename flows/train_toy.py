"""Trains the small model of a data set, as a checkpoint that diffusers opens."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from flows.grid.toy_training import submit_training
from flows.requests.flat import flat
from flows.requests.models import ToyRequest
from flows.run.naming import flow_name
from tasks.checkpoints.train import write_half
from tasks.storage.store import check_writable, get_folder


@dataclass(frozen=True)
class TrainedToy:
    """The checkpoint's folder, for `DDPMPipeline.from_pretrained`, and its digest."""

    checkpoint: str
    digest: str


@flow(name="train-toy", flow_run_name=flow_name, validate_parameters=False)
@flat
def train_toy(request: ToyRequest) -> TrainedToy:
    """Trains a small U-Net on a data set; goes on where a killed run stopped.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    trained = submit_training(request).result()
    folder = write_half(trained, request.output) if request.output else str(get_folder(trained))
    return TrainedToy(folder, trained.artifact)
