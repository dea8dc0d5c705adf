"""Trains the small model of a data set, as a checkpoint that diffusers opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from ddim_core.specs import Execution, ImageSpec, TrainSpec
from flows.naming import flow_name
from flows.toy import toy_resolution, toy_spec, training_split
from tasks.data import content_of, prepare_data
from tasks.store import check_writable, get_folder
from tasks.train import train_toy as train_toy_task


def submit_training(
    dataset: str,
    resolution: int | None,
    train_steps: int,
    seed: int,
    device: str = "cpu",
    class_conditional: bool = False,
    spec: ImageSpec = ImageSpec(),  # noqa: B008 (frozen)
) -> Any:
    """Submits the training of a data set's toy model; returns the future of its checkpoint.

    One thread: the weights then do not depend on the machine's cores, and a busy machine does not
    stall it.
    """
    images = prepare_data(
        content_of(dataset, spec),
        training_split(dataset),
        toy_resolution(dataset, resolution),
        location=dataset,
        spec=spec,
    )
    n_classes = images["n_classes"] if class_conditional else None
    if class_conditional and n_classes is None:
        raise ValueError(f"class_conditional is on, but {dataset!r} has no labels to train on")
    training = toy_spec(dataset, resolution, images["channels"], train_steps, seed, n_classes)
    return train_toy_task.submit(training, images, Execution(device=device))


@flow(name="train-toy", flow_run_name=flow_name, validate_parameters=True)
def train_toy(
    dataset: str = "digits",
    resolution: int | None = None,
    train_steps: int = TrainSpec.steps,
    seed: int = 0,
    class_conditional: bool = False,
    max_broken: int = 0,
    background: str = "white",
    skin_tones: bool = True,
) -> dict[str, Any]:
    """Trains a small U-Net on a data set; goes on where a killed run stopped.

    Args:
        dataset: As of `fid-grid`: `digits`, `emoji`, a folder, a Parquet file, `owner/name`.
        resolution: Size in pixels; digits have 8, emoji 16.
        train_steps: Optimiser steps.
        seed: Keys the initial weights, the batches and the noise.
        class_conditional: Tell the network each image's class, so that it can be guided.
        max_broken, background, skin_tones: As of `fid-grid`.

    Returns:
        The checkpoint's folder, for `DDPMPipeline.from_pretrained`, and its digest.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    toy_spec(dataset, resolution, 1, train_steps, seed)
    spec = ImageSpec(max_broken, background, skin_tones)
    training = submit_training(
        dataset, resolution, train_steps, seed, class_conditional=class_conditional, spec=spec
    )
    trained = training.result()
    folder: Path = get_folder(trained)
    return {"checkpoint": str(folder), "digest": trained["artifact"]}
