"""The paper's experiments on one checkpoint: tables 1 and 2, figures 3 to 6, beside its numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from ddim_core.common.digest import digest
from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import GridCell, SamplerSpec
from ddim_core.images.sources.source import dataset_name
from flows.fid_grid import fid_grid
from flows.grid.cells import CellsFailedError
from flows.grid.inputs import sampled
from flows.grid.outcome import GridOutcome
from flows.grid.toy_training import submit_training
from flows.requests.flat import command_line, flat, values
from flows.requests.grid import GridRequest
from flows.requests.paper import PaperRequest
from flows.run import waiting
from flows.run.naming import flow_name
from flows.run.runners import ONE_TASK_A_CORE, on_device, task_runner
from tasks.checkpoints.addresses import name_of
from tasks.checkpoints.open import (
    CheckpointRecord,
    import_checkpoint,
    lint_schedule,
    open_checkpoint,
    require_native,
)
from tasks.images.prepare import PreparedImages, content_of, notes_on, prepare_data
from tasks.reports.page import asked_by, found_at
from tasks.reports.paper import RealImages, error_text, publish_paper_report, render_paper_report
from tasks.sampling.beyond_sampling import (
    Reconstruction,
    consistency,
    interpolate,
    reconstruct,
    require_unconditional,
    x0_sequence,
)
from tasks.sampling.native import sample_shard
from tasks.storage.cell_rows import read_table
from tasks.storage.naming import named
from tasks.storage.store import ArtifactRef, check_writable
from tasks.tracking.address import why_not_logged
from tasks.tracking.client import track_paper

FEW_STEPS, MANY_STEPS = 10, 100  # of figure 3
PICTURE_STEPS = 50  # of figure 6, and of the predicted x0
N_LINES, N_POINTS, N_PREDICTED = 4, 11, 10


T = TypeVar("T")


class ExperimentsFailedError(RuntimeError):
    """Some experiments, or cells of the grid, failed; the message names each with its reason."""


@dataclass(frozen=True)
class Explored:
    """What came of all but the grid.

    Attributes:
        reconstructions: By S.
        pictures: References by the experiment's name.
        failures: The experiments that failed, each with its reason.
    """

    reconstructions: list[Reconstruction]
    pictures: dict[str, ArtifactRef]
    failures: list[str]


@dataclass(frozen=True, kw_only=True)
class PaperOutcome(GridOutcome):
    """What came of the experiments: that of the grid, and the reconstruction errors by S."""

    reconstructions: list[Reconstruction]


@flow(
    name="paper",
    flow_run_name=flow_name,
    validate_parameters=False,
    task_runner=ONE_TASK_A_CORE,
)
@flat
def paper(request: PaperRequest) -> PaperOutcome:
    """Runs the DDIM paper's experiments on one checkpoint and sets them beside its numbers.

    Raises:
        ValueError: If the request cannot be; nothing has been sampled or trained then.
        ExperimentsFailedError: If experiments, or cells of the grid, failed; the others are in
            the report.
    """
    check_writable()
    grid = request.table1
    with task_runner(
        grid.machine.runner, grid.machine.workers, grid.machine.device
    ):  # the grid makes its own
        model, images, real = _prepare(request, grid)
        explored = _explore(request, grid, model, images)
    cells, images_drawn, failures = _score(request, explored.failures)
    rows = read_table(cells) if cells else []
    place = _report(request, grid, model, images, real, rows, explored, failures) if rows else None
    if failures:
        where = f"; report of the others: {place}" if place else ""
        raise ExperimentsFailedError("; ".join(failures) + where)
    return PaperOutcome(
        report=place,
        cells=cells,
        reconstructions=explored.reconstructions,
        images_drawn=images_drawn,
    )


def _score(request: PaperRequest, failures: list[str]) -> tuple[list[str], int, list[str]]:
    """Runs the grid; returns the cells that landed, how many images were drawn for it, and all
    failures so far."""
    try:
        scored = fid_grid(**values(request.table1))
    except CellsFailedError as error:
        return error.landed, 0, [*failures, str(error)]
    return scored.cells, scored.images_drawn, failures


def _prepare(
    request: PaperRequest, grid: GridRequest
) -> tuple[CheckpointRecord, PreparedImages, RealImages]:
    """Returns the checkpoint, and the real images to encode with what people call them.

    The toy's training is the grid's: it is found in the cache there.
    """
    model = None
    if grid.model.checkpoint:
        model = open_checkpoint(
            import_checkpoint(grid.model.checkpoint), name_of(grid.model.checkpoint)
        )
        require_unconditional(model.n_classes, model.is_latent)
        require_native(model)
        request.require_steps(model.n_train)
    resolution = model.resolution if model else grid.real.resolution
    held_out = grid.real.held_out_split()
    split = held_out or grid.real.split
    images = prepare_data(
        content_of(grid.real.dataset, grid.real.spec), split, resolution, grid.real.dataset,
        model.channels if model else None, grid.real.spec,
    )  # fmt: skip
    n = request.reconstruction.n_reconstructed
    if n > images.n:
        raise ValueError(
            f"n_reconstructed is {n} and {grid.real.dataset!r} {split} has {images.n} images; "
            "ask for at most these"
        )
    if model and model.channels != images.channels:
        raise ValueError(
            f"the checkpoint makes images of {model.channels} channels and the data set has "
            f"{images.channels}; they must be equal"
        )
    if model is None:
        training = submit_training(grid.training)
        model = open_checkpoint(
            training.result(), f"toy-{Path(dataset_name(grid.real.dataset)).stem}"
        )
    name = dataset_name(grid.real.dataset)
    return model, images, RealImages(name, split, held_out is not None, n, notes_on(images))


def _explore(
    request: PaperRequest, grid: GridRequest, model: CheckpointRecord, images: PreparedImages
) -> Explored:
    """Runs all but the grid, the costliest first."""
    ref, execution, seed = model.ref, grid.machine.execution, grid.grid.seed
    reconstructing: dict[str, PrefectFuture[Reconstruction]] = {}
    drawing: dict[str, PrefectFuture[ArtifactRef]] = {}
    all_steps = sorted(set(request.reconstruction.reconstruction_steps))
    several = [_eta_zero(steps, grid, model) for steps in sorted(set(grid.grid.steps))]
    pictured = _eta_zero(min(PICTURE_STEPS, model.n_train), grid, model)
    with on_device(grid.machine.runner, grid.machine.device):
        for steps in reversed(all_steps):
            reconstructing[f"reconstruction S={steps}"] = reconstruct.submit(
                _eta_zero(steps, grid, model), ref, images,
                request.reconstruction.n_reconstructed, execution,
            )  # fmt: skip
        drawing["consistency"] = consistency.submit(several, ref, seed, execution)
        drawing["interpolate"] = interpolate.submit(
            pictured, ref, seed, N_LINES, N_POINTS, execution
        )
        drawing["x0_sequence"] = x0_sequence.submit(pictured, ref, seed, N_PREDICTED, execution)
    returned, failures = _results(reconstructing)
    pictures, more = _results(drawing)
    reconstructions = sorted(returned.values(), key=lambda record: record.steps)
    for record in reconstructions:
        error = error_text(record.error)
        _say(f"reconstruction S = {record.steps:<4}  squared error {error}  n = {record.n}")
    return Explored(reconstructions, pictures, failures + more)


def _results(work: dict[str, PrefectFuture[T]]) -> tuple[dict[str, T], list[str]]:
    """Waits for all; returns the results of those that completed, and what failed."""
    for future in work.values():
        future.wait()
    failures = [
        f"{name} ({str(f.state.message).removeprefix('Task run encountered an exception ')})"
        for name, f in work.items()
        if not f.state.is_completed()
    ]
    for failure in failures:
        _say(f"failed: {failure}")
    done = {name: f.result() for name, f in work.items() if f.state.is_completed()}
    return done, failures


def _eta_zero(steps: int, grid: GridRequest, model: CheckpointRecord) -> SamplerSpec:
    kind: Any = model.prediction_type  # the spec checks it
    return SamplerSpec(steps=steps, spacing=grid.grid.spacing, prediction_type=kind)


def _report(
    request: PaperRequest,
    grid: GridRequest,
    model: CheckpointRecord,
    images: PreparedImages,
    real: RealImages,
    rows: list[CellRow],
    explored: Explored,
    failures: list[str],
) -> str:
    """Renders and publishes the report and logs the run; returns the report's place."""
    digests = {_place_of(row): row.cell_digest for row in rows}
    shown = [cell for cell in _samples_shown(grid, model) if _place_in_grid(cell) in digests]
    start, stop = grid.shards()[0]
    samples = [  # drawn by the grid: these come from the store
        named(sample_shard, f"{cell.label} shard 0")(
            cell, model.ref, start, stop, grid.machine.execution
        )
        for cell in shown
    ]
    sampled = [digests[_place_in_grid(cell)] for cell in shown]
    reconstructions = explored.reconstructions
    findings = lint_schedule(model.ref, _all_cells(request, grid, model))
    report = asked_by(
        render_paper_report(
            rows, reconstructions, explored.pictures, samples, sampled, real, findings, failures
        ),
        command_line("paper", request, request.machine.undeciding),
    )
    all_steps = sorted(set(request.reconstruction.reconstruction_steps))
    name = digest(sorted(digests.values()), all_steps, images, real.n)
    place = publish_paper_report(name, report, rows, reconstructions)
    for sentence in report.reading:
        _say(sentence)
    errors = {record.steps: record.error for record in reconstructions}
    n = real.n if reconstructions else 0
    told = found_at(report, place)
    tracked = track_paper(name, rows, errors, n, told, not failures, return_state=True)
    if not tracked.is_completed():
        _say(f"{why_not_logged()}, the run is not logged: {tracked.message}")
    return str(place)


def _samples_shown(grid: GridRequest, model: CheckpointRecord) -> list[GridCell]:
    """The cells of figure 3: few and many steps of every line, as near to the paper's as asked."""
    chosen = {
        min(grid.grid.steps, key=lambda s: abs(s - wanted)) for wanted in (FEW_STEPS, MANY_STEPS)
    }
    cells = grid.cells(sampled(grid, model))
    shown = [cell for cell in cells if cell.sampler.steps in chosen]
    return sorted(shown, key=lambda cell: cell.sampler.steps)


def _all_cells(request: PaperRequest, grid: GridRequest, model: CheckpointRecord) -> list[GridCell]:
    """The grid's cells, and those of the reconstructions."""
    others = [
        _eta_zero(s, grid, model) for s in sorted(set(request.reconstruction.reconstruction_steps))
    ]
    cells = grid.cells(sampled(grid, model))
    return [*cells, *(GridCell(sampler) for sampler in others)]


def _place_in_grid(cell: GridCell) -> tuple[str, float, int]:
    assert isinstance(cell.sampler, SamplerSpec)
    return cell.sampler.variance, cell.sampler.eta, cell.sampler.steps


def _place_of(row: CellRow) -> tuple[str, float, int]:
    return row.variance, row.eta, row.steps


def _say(line: str) -> None:
    """Puts a line into the run's log and, under the CLI, into the terminal."""
    get_run_logger().info(line)
    if os.environ.get("DDIM_TERMINAL"):
        waiting.say(line)
