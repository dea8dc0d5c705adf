"""The main flow: a table of Frechet distances with intervals over (S, eta), for one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture, as_completed

from ddim_core.conditioning import require_guidable
from ddim_core.digest import digest
from ddim_core.sources import dataset_name
from ddim_core.specs import ClassifierSpec, GridCell, Spacing, TrainSpec, Weights
from flows.progress import GridProgress
from flows.request import GridRequest
from flows.runners import ONE_TASK_A_CORE
from flows.train_toy import submit_training, training_split
from tasks.captions import prompts_for
from tasks.checkpoint import CheckpointRecord, import_checkpoint, lint_schedule, open_checkpoint
from tasks.data import content_of, notes_on, prepare_data
from tasks.embed import embed_images
from tasks.extractor import inception_extractor, pixel_extractor, train_extractor
from tasks.judge import judge_classes
from tasks.locations import name_of
from tasks.report import publish_report, render_report
from tasks.sample import sample_shard
from tasks.score import score_cell
from tasks.store import ArtifactRef, check_writable
from tasks.table import cell_digest, row_of, write_row
from tasks.tracking import track_grid


class CellsFailedError(RuntimeError):
    """Some cells have no score; the message names each with its reason."""


@dataclass(frozen=True)
class GridInputs:
    """All that the cells of a grid share."""

    checkpoint: CheckpointRecord
    cells: list[GridCell]
    reference_images: dict[str, Any]
    reference: ArtifactRef
    extractor: dict[str, Any]
    floor: dict[str, Any] | None
    notes: list[str]


@dataclass(frozen=True)
class CellFutures:
    """A cell at work."""

    cell: GridCell
    shards: list[PrefectFuture[Any]]
    features: list[PrefectFuture[Any]]
    classes: PrefectFuture[Any] | None
    score: PrefectFuture[Any]

    @property
    def everything(self) -> list[PrefectFuture[Any]]:
        """All tasks of the cell, in the order in which they need each other."""
        classes = [self.classes] if self.classes else []
        return [*self.shards, *self.features, *classes, self.score]


@flow(name="fid-grid", validate_parameters=True, task_runner=ONE_TASK_A_CORE)
def fid_grid(
    checkpoint: str = "",
    dataset: str = "digits",
    split: str = "",
    resolution: int | None = None,
    steps: list[int] = [5, 10, 20, 50],  # noqa: B006 (Prefect shows it in the form; never changed)
    etas: list[float] = [0.0, 0.2, 0.5, 1.0],  # noqa: B006
    sigma_hat: bool = True,
    spacing: Spacing = "uniform",
    clip: bool = False,
    guidance: list[float] = [1.0],  # noqa: B006
    n_images: int = 2048,
    features: str = "classifier",
    feature_weights: str = "",
    seed: int = 0,
    shard_size: int = 1024,
    batch_size: int = 256,
    threads: int = 1,
    device: str = "cpu",
    train_steps: int = TrainSpec.steps,
    class_conditional: bool = False,
    weights: Weights = "ema",
    noise_schedule: str = "",
    prediction_type: str = "",
    prompts: str = "",
    max_broken: int = 0,
    background: str = "white",
    skin_tones: bool = True,
) -> dict[str, Any]:
    """Scores every (S, eta) of a grid on one checkpoint; all of it cached by content and code.

    Args:
        checkpoint: A diffusers pipeline (DDPM, DDIM, LDM, Stable Diffusion 1.x or 2.x) or
            UNet2DModel, as a folder or hub id; a .safetensors file with its config.json beside
            it; a .ckpt of the official DDIM code, of pytorch_diffusion or of KAIST's course; an
            MLflow address (runs:/, models:/, mlflow-artifacts:/). Empty trains the toy model.
        dataset: `digits`, `emoji`, a folder of images (flat, a folder per class, or with splits),
            a Parquet file with an image column, or `owner/name` of a Hugging Face data set.
        split: The part of the data set that is the reference; empty takes `train` where there is
            one, else all.
        resolution: Size in pixels of a toy model trained on a data set of your own; images are
            resized to a checkpoint's own size.
        steps: Numbers of steps S.
        etas: Noise fractions eta in [0, 1]; 0 is deterministic DDIM, 1 is DDPM-like.
        sigma_hat: Also score the larger DDPM variance, the official code's ddpm_noisy.
        spacing: How S timesteps are chosen: uniform, quad, leading, linspace or trailing.
        clip: Clip each predicted x0 to [-1, 1] (sigma-hat always does, as the official code).
        guidance: Scales of classifier-free guidance, for a class-conditional checkpoint: 0 leaves
            the class out, 1 is no guidance. Image k is asked to be of class k mod n_classes.
        n_images: Images per cell. Asking for more later draws only the new ones.
        features: `classifier` (trained on the data set's labels), `inception-v3` or `pixels`.
        feature_weights: File with the weights of inception-v3; empty takes torch-fidelity's own,
            downloaded once.
        seed: Keys every image's random stream (and the toy model's training).
        shard_size: Images per unit of work and of caching.
        batch_size: Images per network call; changes no result on a CPU.
        threads: Torch threads per task; changes no result on a CPU.
        device: `cpu`, or a CUDA device.
        train_steps: Training steps of the toy model.
        class_conditional: Train the toy model with the data set's labels.
        weights: `ema` takes the moving average where a checkpoint has both, `raw` the others.
        noise_schedule: Instead of the checkpoint's own: linear, quad, cosine, constant, sigmoid
            or jsd, with the usual ends.
        prediction_type: Instead of the checkpoint's own: epsilon, sample or v_prediction.
        prompts: For a checkpoint that is told of a text: a file with one prompt a line, or a
            .jsonl with captions; empty takes the data set's captions. Image k is drawn for prompt
            k mod n.
        max_broken: So many images that cannot be read are left out, and named in the report; more
            are refused.
        background: The colour (CSS) under transparent pixels.
        skin_tones: With the variants of skin tone, of `emoji`.

    Returns:
        Where the report is, how many cells landed, and how many images had to be drawn.

    Raises:
        ValueError: If the request cannot be; nothing has been computed then.
        CellsFailedError: If cells failed; the others have their rows and are in the report.
    """
    request = GridRequest(**locals())  # the flow's parameters are the request's fields
    check_writable()
    inputs = _prepare(request)
    work = _submit(request, inputs)
    with GridProgress(inputs.cells, request.n_images) as progress:
        rows, failures = _collect(request, inputs, work, progress)
        place = _report(request, inputs, work, rows, progress) if rows else None
    if failures:
        raise CellsFailedError(
            f"{len(failures)} of {len(work)} cells failed"
            + (", the others have their rows: " if rows else ": ")
            + "; ".join(failures)
        )
    return {
        "report": place,
        "cells": [row["cell_digest"] for row in rows],
        "images_drawn": progress.images_drawn,
    }


def _prepare(request: GridRequest) -> GridInputs:
    """Makes what all cells share: checkpoint, extractor, reference features, floor.

    The toy model and the extractor are trained side by side.
    """
    content = content_of(request.dataset, request.images())
    training = None
    if request.checkpoint:
        imported = import_checkpoint(request.checkpoint, request.weights)
        checkpoint = open_checkpoint(imported, name_of(request.checkpoint))
        resolution: int | None = checkpoint["resolution"]
        if request.resolution not in (None, resolution):
            raise ValueError(
                f"resolution is {request.resolution}, and the checkpoint makes images of "
                f"{resolution} pixels; leave it out"
            )
        _cells(request, checkpoint)  # S > T is found here, before anything is trained
    else:
        training = submit_training(
            request.dataset, request.resolution, request.train_steps, request.seed, request.device,
            request.class_conditional, request.images(),
        )  # fmt: skip
        resolution = request.resolution

    def data(split: str) -> dict[str, Any]:
        """A split in the channels of the checkpoint, which a toy takes from its training images."""
        channels = None
        if request.checkpoint:
            channels = checkpoint["channels"]
        elif split != (fitted := training_split(request.dataset)):
            channels = data(fitted)["channels"]
        return prepare_data(content, split, resolution, request.dataset, channels, request.images())

    reference_images = data(request.split)
    held_out_split = request.held_out_split()
    held_out = data(held_out_split) if held_out_split else None
    extractor_future = _submit_extractor(request, data, held_out)
    if training is not None:
        kind = "-conditional" if request.class_conditional else ""
        name = f"toy-{Path(dataset_name(request.dataset)).stem}{kind}"
        checkpoint = open_checkpoint(training.result(), name)
    if checkpoint["channels"] != reference_images["channels"]:
        raise ValueError(
            f"the checkpoint makes images of {checkpoint['channels']} channels and the data set "
            f"has {reference_images['channels']}; they must be equal"
        )
    extractor, execution = extractor_future.result(), request.execution()
    reference = embed_images(reference_images, extractor, execution)
    floor = None
    if held_out:
        floor = score_cell([embed_images(held_out, extractor, execution)], reference)
    cells = _cells(request, checkpoint)
    notes = notes_on(reference_images, *([held_out] if held_out else []))
    return GridInputs(checkpoint, cells, reference_images, reference, extractor, floor, notes)


def _cells(request: GridRequest, checkpoint: CheckpointRecord) -> list[GridCell]:
    prompts = None
    if checkpoint["with_prompts"] or request.prompts:
        prompts = prompts_for(checkpoint["with_prompts"], request.prompts, request.dataset)
    cells = request.cells(
        checkpoint["n_train"], checkpoint["prediction_type"], checkpoint["is_latent"], prompts
    )
    for cell in cells:
        if checkpoint["with_prompts"]:
            continue  # the empty prompt is always there to be guided away from
        require_guidable(
            checkpoint["n_classes"], checkpoint["null_label"], cell.sampler.guidance_scale
        )
    return cells


def _submit_extractor(
    request: GridRequest,
    data: Callable[[str], dict[str, Any]],
    held_out: dict[str, Any] | None,
) -> Any:
    """Submits the making of the feature extractor; returns its future."""
    if request.features == "pixels":
        return pixel_extractor.submit()
    if request.features == "inception-v3":
        return inception_extractor.submit(request.feature_weights)
    fitted = data(training_split(request.dataset))
    unseen = data("test") if request.split == "test" else held_out
    return train_extractor.submit(ClassifierSpec(), fitted, unseen, request.execution())


def _submit(request: GridRequest, inputs: GridInputs) -> list[CellFutures]:
    """Submits all work, the costliest cells first so that no long one is left for the end.

    A cell's features queue behind the images of the cells after it, at least a core's worth of
    shards: a worker that takes them up finds their images drawn, and does not stand waiting.
    """
    cells = sorted(inputs.cells, key=lambda cell: -cell.sampler.steps)
    ahead = -(-(cpu_count() or 1) // len(request.shards()))
    images: dict[GridCell, list[Any]] = {}  # futures, which Prefect resolves in a task's inputs
    work: dict[GridCell, CellFutures] = {}
    for i in range(len(cells) + ahead):
        if i < len(cells):
            images[cells[i]] = _submit_images(request, inputs, cells[i])
        if i >= ahead:
            cell = cells[i - ahead]
            work[cell] = _submit_score(request, inputs, cell, images[cell])
    return [work[cell] for cell in inputs.cells]


def _submit_images(request: GridRequest, inputs: GridInputs, cell: GridCell) -> list[Any]:
    execution, ref = request.execution(), inputs.checkpoint["ref"]
    return [
        sample_shard.submit(cell, ref, start, stop, execution) for start, stop in request.shards()
    ]


def _submit_score(
    request: GridRequest, inputs: GridInputs, cell: GridCell, shards: list[Any]
) -> CellFutures:
    features: list[Any] = [
        embed_images.submit(shard, inputs.extractor, request.execution()) for shard in shards
    ]
    classes = None
    if inputs.checkpoint["n_classes"] == inputs.extractor.get("n_classes", -1):
        classes = judge_classes.submit(shards, inputs.extractor, request.execution())
    score = score_cell.submit(features, inputs.reference)
    return CellFutures(cell, shards, features, classes, score)


def _collect(
    request: GridRequest, inputs: GridInputs, work: list[CellFutures], progress: GridProgress
) -> tuple[list[dict[str, Any]], list[str]]:
    """Writes each cell's row as it lands; returns the rows in grid order, and what failed."""
    by_score = {futures.score: futures for futures in work}
    rows: dict[GridCell, dict[str, Any]] = {}
    failures = []
    for futures in work:
        for shard in futures.shards:
            shard.add_done_callback(partial(progress.shard_done, futures.cell))
    for score in as_completed(list(by_score)):
        futures = by_score[score]
        for future in futures.everything:
            future.wait()  # only this makes a future know its final state
        if all(future.state.is_completed() for future in futures.everything):
            shards = [shard.result() for shard in futures.shards]
            protocol = _protocol(request, inputs)
            result = score.result() | (futures.classes.result() if futures.classes else {})
            rows[futures.cell] = row_of(futures.cell, inputs.checkpoint, protocol, result, shards)
            write_row(rows[futures.cell])
            progress.cell_landed(rows[futures.cell])
        else:
            failures.append(f"{futures.cell.label} ({_reason(futures)})")
            progress.say(f"failed: {failures[-1]}")
    return [rows[futures.cell] for futures in work if futures.cell in rows], failures


def _reason(futures: CellFutures) -> str:
    """The message of what failed first: sampling, features, or else the score itself."""
    states = [future.state for future in futures.everything]
    failed = next(state for state in states if not state.is_completed())
    return str(failed.message).removeprefix("Task run encountered an exception ")


def _protocol(request: GridRequest, inputs: GridInputs) -> dict[str, Any]:
    """What a score has to be compared at, and what people call it."""
    return {
        "extractor_digest": inputs.extractor["artifact"],
        "extractor": inputs.extractor["kind"],
        "reference_digest": inputs.reference_images["artifact"],
        "dataset": ", ".join(filter(None, [dataset_name(request.dataset), request.images().label])),
        "split": request.split,
        "resize": inputs.reference_images["resize"],
        "n_images": request.n_images,
        "shard_size": request.shard_size,
    }


def _report(
    request: GridRequest,
    inputs: GridInputs,
    work: list[CellFutures],
    rows: list[dict[str, Any]],
    progress: GridProgress,
) -> str:
    """Renders and publishes the report and logs the grid; returns the report's place."""
    protocol, ref = _protocol(request, inputs), inputs.checkpoint["ref"]
    grid = digest(sorted(cell_digest(cell, ref, protocol) for cell in inputs.cells))
    in_rows = {row["cell_digest"] for row in rows}
    landed = [f for f in work if cell_digest(f.cell, ref, protocol) in in_rows]
    about = {
        "floor": inputs.floor,
        "notes": inputs.notes,
        "test_accuracy": inputs.extractor.get("test_accuracy"),
        "findings": inputs.checkpoint["assumed"]
        + lint_schedule(inputs.checkpoint["ref"], [futures.cell for futures in work]),
    }
    report = render_report(rows, [futures.shards[0].result() for futures in landed], about)
    place = publish_report(grid, report, rows)
    for sentence in [*report["reading"], *inputs.notes]:
        progress.say(sentence)
    complete = len(rows) == len(inputs.cells)
    tracked = track_grid(grid, rows, report, complete, return_state=True)
    if not tracked.is_completed():
        progress.say(f"MLflow could not be reached, the grid is not logged: {tracked.message}")
    return place
