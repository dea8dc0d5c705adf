"""Trains the small model of a data set, as a checkpoint that diffusers opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from ddim_core.specs import Execution
from flows.naming import flow_name
from flows.requests.flat import flat
from flows.requests.toy import ToyRequest, toy_resolution, training_split
from tasks.data import content_of, prepare_data
from tasks.store import check_writable, get_folder
from tasks.train import train_toy as train_toy_task


def submit_training(request: ToyRequest, device: str = "cpu") -> Any:
    """Submits the training of a data set's toy model; returns the future of its checkpoint.

    One thread: the weights then do not depend on the machine's cores, and a busy machine does not
    stall it.
    """
    real = request.real
    images = prepare_data(
        content_of(real.dataset, real.spec),
        training_split(real.dataset),
        toy_resolution(real.dataset, real.resolution),
        location=real.dataset,
        spec=real.spec,
    )
    n_classes = images["n_classes"] if request.toy.class_conditional else None
    if request.toy.class_conditional and n_classes is None:
        raise ValueError(f"class_conditional is on, but {real.dataset!r} has no labels to train on")
    training = request.training(images["channels"], n_classes)
    return train_toy_task.submit(training, images, Execution(device=device))


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
