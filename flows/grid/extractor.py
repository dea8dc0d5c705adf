"""A grid's feature extractor, and the real images that test it and tell its floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ddim_core.networks.specs import ClassifierSpec
from flows.requests.grid import TRAINED, GridRequest
from flows.requests.models import training_split
from flows.requests.samplers.choice import LEAST_IMAGES
from flows.run.runners import on_device
from tasks.cells.extractor import ready_extractor, train_extractor
from tasks.images.prepare import PreparedImages
from tasks.storage.naming import named


def held_out_of(
    request: GridRequest, data: Callable[[str], PreparedImages]
) -> PreparedImages | None:
    """Real images beside the reference; None where there are not enough to tell a floor from."""
    split = request.real.held_out_split()
    images = data(split) if split else None
    return images if images and images.n >= LEAST_IMAGES else None


def submit_extractor(
    request: GridRequest,
    data: Callable[[str], PreparedImages],
    held_out: PreparedImages | None,
) -> Any:
    """Submits the making of the feature extractor; returns its future."""
    choice = request.extractor()
    if choice.name != TRAINED:
        return named(ready_extractor, f"extractor {choice.label}").submit(choice)
    fitted = data(training_split(request.real.dataset))
    request.require_trainable(fitted.resolution)
    unseen = data("test") if request.real.split == "test" else held_out
    with on_device(request.machine.runner, request.machine.device):
        return train_extractor.submit(ClassifierSpec(), fitted, unseen, request.machine.execution)
