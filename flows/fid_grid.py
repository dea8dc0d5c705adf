"""The main flow: a table of Frechet distances with intervals over (S, eta), for one checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from os import cpu_count
from typing import Any

from prefect import flow
from prefect.futures import as_completed

from ddim_core.digest import digest
from ddim_core.specs import USUAL_ETAS, GridCell, Spacing, TrainSpec, Weights
from flows.cell_work import (
    CellFutures,
    CellsFailedError,
    landed_row,
    submit_features,
    submit_images,
    submit_score,
)
from flows.grid_inputs import GridInputs, prepare, protocol_of
from flows.matrix import best_cell_matrix
from flows.naming import flow_name
from flows.progress import GridProgress
from flows.request import PREVIOUS, GridRequest
from flows.runners import ONE_TASK_A_CORE, task_runner
from flows.verdict import conclude, judge_grid, settle_baseline
from tasks.mlflow_address import why_not_logged
from tasks.report import publish_report, render_report
from tasks.store import StoreError, check_writable
from tasks.table import cell_digest, write_row
from tasks.tracking import track_grid
from tasks.tracking_cells import cells_logged_early


@flow(
    name="fid-grid",
    flow_run_name=flow_name,
    validate_parameters=True,
    task_runner=ONE_TASK_A_CORE,
)
def fid_grid(
    checkpoint: str = "",
    dataset: str = "digits",
    split: str = "",
    resolution: int | None = None,
    steps: list[int] = [5, 10, 20, 50],  # noqa: B006 (Prefect shows it in the form; never changed)
    etas: list[float] = USUAL_ETAS,
    sigma_hat: bool | None = None,
    spacing: Spacing = "uniform",
    clip: bool = False,
    guidance: list[float] = [1.0],  # noqa: B006
    n_images: int = 2048,
    features: str = "classifier",
    feature_weights: str = "",
    resize: str = "",
    matrix_images: int = 64,
    seed: int = 0,
    shard_size: int = 2048,
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
    runner: str = "threads",
    workers: int | None = None,
    against: str = PREVIOUS,
    at: str = "",
    margin: float = 0.0,
    gate: bool = False,
    promote: str = "",
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
        sigma_hat: Also score the larger DDPM variance, the official code's ddpm_noisy, which
            clips each predicted x0 to [-1, 1] (but for latents) where the other lines do not.
            Empty: only where etas are the usual ones, 0, 0.2, 0.5, 1.
        spacing: How S timesteps are chosen: uniform, quad, leading, linspace or trailing.
        clip: Clip each predicted x0 to [-1, 1] on every line. Off, sigma-hat alone still does, as
            the official code; latents are never clipped.
        guidance: Scales of classifier-free guidance, for a class-conditional checkpoint: 0 leaves
            the class out, 1 is no guidance. Image k is asked to be of class k mod n_classes.
        n_images: Images per cell. Asking for more later draws only the new ones.
        features: `classifier` (trained on the data set's labels), `pixels`, `inception-v3`,
            `afhq-inception` (any torchvision Inception), `clip-vit-b-32` or `dinov2-vit-b-14`.
        feature_weights: The weights: a file for the Inceptions, a transformers folder or hub id
            for the others; empty takes the usual ones, downloaded once.
        resize: From an image's native size to the network: `tf1`, `clean` or `torch`; empty takes
            the network's usual one.
        matrix_images: So many images of the best cell go through every extractor and resize at
            hand, for the report's protocol matrix; 0 leaves it out.
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
        runner: Where tasks run: `threads`, `processes`, `dask` or `ray` on this machine, or
            `dask:ADDRESS`, `ray:ADDRESS` on a cluster; changes no result on CPUs of one kind.
        workers: Tasks at once; empty is one a core.
        against: Checkpoint to compare with: `previous`, the last one scored by this protocol; a
            folder, or an MLflow address such as models:/NAME@champion; `none`.
        at: Operating point that decides, S and eta, such as `20,0.5`; empty chooses the best.
        margin: Largest difference of FID that does not count.
        gate: End Failed if the checkpoint is proven worse.
        promote: Registered model whose champion is compared with, and becomes this checkpoint
            where that is better.

    Returns:
        Where the report is, which cells landed, how many images had to be drawn, the verdict, and
        a sentence for each row of the table that is damaged.

    Raises:
        ValueError: If the request cannot be; nothing has been computed then.
        CellsFailedError: If cells failed; the others have their rows and are in the report.
        RegressionError: If a gate was asked for and the checkpoint is proven worse.
    """
    request = GridRequest(**locals())  # the flow's parameters are the request's fields
    check_writable()
    with task_runner(request.runner, request.workers):
        return _run(request)


def _run(request: GridRequest) -> dict[str, Any]:
    baseline = settle_baseline(request, fid_grid)
    if baseline and baseline.outcome:
        return baseline.outcome
    inputs = prepare(request)
    work = _submit(request, inputs)
    with GridProgress(inputs.cells, request.n_images) as progress:
        for finding in inputs.findings:
            progress.logger.info("schedule: %s", finding)
        with cells_logged_early(_identity(request, inputs)) as log:
            rows, failures = _collect(request, inputs, work, progress, log)
        verdict: dict[str, Any] | None = None
        damaged: list[str] = []
        if rows and not failures:
            verdict, damaged = judge_grid(request, rows, baseline)
        place = _report(request, inputs, work, rows, verdict, progress) if rows else None
    if failures:
        raise CellsFailedError(
            f"{len(failures)} of {len(work)} cells failed"
            + (", the others have their rows: " if rows else ": ")
            + "; ".join(failures),
            [row["cell_digest"] for row in rows],
        )
    conclude(request, rows, inputs.checkpoint, verdict)
    return {
        "report": place,
        "cells": [row["cell_digest"] for row in rows],
        "images_drawn": progress.images_drawn,
        "verdict": verdict,
        "damaged": damaged,
    }


def _submit(request: GridRequest, inputs: GridInputs) -> list[CellFutures]:
    """Submits all work, the costliest cells first so that no long one is left for the end.

    A cell's features queue behind the images of the cells after it, at least a core's worth of
    shards, and its score as far behind its features where these alone are less than that: a worker
    that takes one up finds what it needs, and does not stand waiting.
    """
    cells = sorted(inputs.cells, key=lambda cell: -cell.sampler.steps)
    behind = -(-(cpu_count() or 1) // len(request.shards()))
    score_behind = 2 * behind if behind > 1 else behind
    images: dict[GridCell, list[Any]] = {}  # futures, which Prefect resolves in a task's inputs
    features: dict[GridCell, list[Any]] = {}
    work: dict[GridCell, CellFutures] = {}
    for i in range(len(cells) + score_behind):
        for cell in _at(cells, i):
            images[cell] = submit_images(request, inputs, cell, request.shards())
        for cell in _at(cells, i - behind):
            starts = [start for start, _ in request.shards()]
            shards = list(zip(starts, images[cell], strict=True))
            features[cell] = submit_features(request, inputs, cell, shards)
        for cell in _at(cells, i - score_behind):
            work[cell] = submit_score(request, inputs, cell, images[cell], features[cell])
    return [work[cell] for cell in inputs.cells]


def _at(cells: list[GridCell], i: int) -> list[GridCell]:
    """The cell at a place of the queue, if there is one."""
    return cells[i : i + 1] if i >= 0 else []


def _identity(request: GridRequest, inputs: GridInputs) -> str:
    """The digest of all cells of the grid."""
    protocol, ref = protocol_of(request, inputs), inputs.checkpoint["ref"]
    return digest(sorted(cell_digest(cell, ref, protocol) for cell in inputs.cells))


def _collect(
    request: GridRequest,
    inputs: GridInputs,
    work: list[CellFutures],
    progress: GridProgress,
    log: Callable[[dict[str, Any]], None],
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
        reason = None if futures.wait() else futures.reason
        if reason is None:
            row = landed_row(request, inputs, futures)
            reason = _unwritten(row)
        if reason is None:
            rows[futures.cell] = row
            log(row)
            progress.cell_landed(row)
        else:
            failures.append(f"{futures.cell.label} ({reason})")
            progress.say(f"failed: {failures[-1]}")
    return [rows[futures.cell] for futures in work if futures.cell in rows], failures


def _unwritten(row: dict[str, Any]) -> str | None:
    """Writes a row; says why where it cannot be."""
    try:
        write_row(row)
    except StoreError as error:
        return str(error)
    return None


def _report(
    request: GridRequest,
    inputs: GridInputs,
    work: list[CellFutures],
    rows: list[dict[str, Any]],
    verdict: dict[str, Any] | None,
    progress: GridProgress,
) -> str:
    """Renders and publishes the report and logs the grid; returns the report's place."""
    grid = _identity(request, inputs)
    protocol, ref = protocol_of(request, inputs), inputs.checkpoint["ref"]
    in_rows = {row["cell_digest"] for row in rows}
    landed = [f for f in work if cell_digest(f.cell, ref, protocol) in in_rows]
    about = {
        "floor": inputs.floor,
        "notes": inputs.notes,
        "test_accuracy": inputs.extractor.get("test_accuracy"),
        "findings": inputs.findings,
        "verdict": verdict,
        "matrix": best_cell_matrix(
            request,
            inputs.extractor,
            inputs.reference_images,
            rows,
            [[shard.result() for shard in futures.shards] for futures in landed],
        ),
    }
    report = render_report(rows, [futures.shards[0].result() for futures in landed], about)
    place = publish_report(grid, report, rows)
    called = verdict["sentences"][:1] if verdict else []
    for sentence in [*report["reading"], *inputs.notes, *called]:
        progress.say(sentence)
    complete = len(rows) == len(inputs.cells)
    tracked = track_grid(grid, rows, report, complete, return_state=True)
    if not tracked.is_completed():
        progress.say(f"{why_not_logged()}, the grid is not logged: {tracked.message}")
    return place
