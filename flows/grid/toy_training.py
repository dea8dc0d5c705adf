"""The training of a data set's small model, submitted where a flow needs its checkpoint."""

from __future__ import annotations

from typing import Any

from ddim_core.diffusion.specs import Execution
from flows.requests.models import ToyRequest, toy_resolution, training_split
from tasks.checkpoints.train import train_toy as train_toy_task
from tasks.images.prepare import content_of, prepare_data


def submit_training(request: ToyRequest) -> Any:
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
    n_classes = images.n_classes if request.toy.class_conditional else None
    if request.toy.class_conditional and n_classes is None:
        raise ValueError(f"class_conditional is on, but {real.dataset!r} has no labels to train on")
    training = request.training(images.channels, n_classes)
    return train_toy_task.submit(training, images, Execution(device=request.device))
