"""A grid whose images go to the cells whose rank is still open, until the best is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from prefect import flow

from ddim_core.allocation import Goal, Rules, allocate
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
from flows.grid_inputs import GridInputs, prepare
from flows.naming import flow_name
from flows.progress import GridProgress
from flows.race_request import first_images, race_request, usual_budget
from flows.request import GridRequest
from flows.runners import ONE_TASK_A_CORE, task_runner
from tasks.allocation_report import publish_allocation, render_allocation
from tasks.mlflow_address import why_not_logged
from tasks.store import check_writable
from tasks.table import write_row
from tasks.tracking import track_grid


@flow(
    name="until-decided",
    flow_run_name=flow_name,
    validate_parameters=True,
    task_runner=ONE_TASK_A_CORE,
)
def until_decided(
    confidence: float = 0.95,
    budget: int | None = None,
    goal: Goal = "best",
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
    seed: int = 0,
    shard_size: int = 128,
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
) -> dict[str, Any]:
    """Finds the best cell of a grid, or its Pareto front, with as few images as that takes.

    All cells get a first round of images; then only those whose rank is open get more, until it
    is decided, each has `n_images`, or the budget is spent. See `ddim_core.allocation`.

    Args:
        confidence: Of the whole decision, however many rounds it takes.
        budget: Most images of all cells together; none takes half of what the full grid draws.
        goal: `best`, the cell of the lowest FID, or `front`, the Pareto front of FID against
            network calls.
        sigma_hat: Also the larger DDPM variance, which clips each predicted x0 to [-1, 1] (but for
            latents) where the other lines do not. Empty: only where etas are the usual ones.
        clip: Clip each predicted x0 on every line; off, sigma-hat alone still does.
        n_images: Most images a cell gets: what each would get in the full grid.
        shard_size: Images per unit of work; the first round is a multiple of it.

    The others are those of `fid_grid`.

    Returns:
        What was decided, where the report is, and the images drawn.

    Raises:
        ValueError: If the request cannot be; nothing has been sampled then.
        CellsFailedError: If cells failed; the others have their rows and are in the report.
    """
    asked = dict(locals())
    request = race_request(asked)
    check_writable()
    with task_runner(request.runner, request.workers):
        return _run(request, confidence, budget, goal)


def _run(request: GridRequest, confidence: float, budget: int | None, goal: Goal) -> dict[str, Any]:
    inputs = prepare(request)
    k = len(inputs.cells)
    first = first_images(inputs.reference["d"], request.shard_size, request.n_images)
    if budget is None:
        budget = usual_budget(k, first, request.n_images)
    rules = Rules(goal, confidence, budget, first, request.n_images, request.shard_size)
    with GridProgress(inputs.cells, request.n_images) as progress:
        race = Race(request, inputs, progress)
        outcome = allocate([race.nfe(cell) for cell in inputs.cells], race.score, rules)
        rows = [race.rows[i] for i in sorted(race.rows)]
        for row in rows:
            write_row(row)
        if not rows:
            raise CellsFailedError(f"every cell failed: {'; '.join(race.failures.values())}")
        about = {"floor": inputs.floor, "rules": asdict(rules), "outcome": asdict(outcome)}
        report = render_allocation(rows, sorted(race.rows), about)
        name = digest([row["cell_digest"] for row in rows], asdict(rules))
        place = publish_allocation(name, report, rows)
        for sentence in report["reading"]:
            progress.say(sentence)
        tracked = track_grid(name, rows, report, not race.failures, return_state=True)
        if not tracked.is_completed():
            progress.say(f"{why_not_logged()}, nothing is logged: {tracked.message}")
    if race.failures:
        failed = "; ".join(race.failures.values())
        raise CellsFailedError(
            f"{len(race.failures)} of {len(inputs.cells)} cells failed: {failed}"
        )
    return {
        "report": place,
        "reading": report["reading"],
        "decided": outcome.decided,
        "leader": None if outcome.leader is None else inputs.cells[outcome.leader].label,
        "cells": [row["cell_digest"] for row in rows],
        "images": outcome.images,
        "images_full": outcome.images_full,
        "images_drawn": progress.images_drawn,
    }


class Race:
    """The cells' images and features so far; extended, never drawn again.

    Attributes:
        rows: The newest row of each cell that has one, by place.
        failures: What failed, by place.
    """

    def __init__(self, request: GridRequest, inputs: GridInputs, progress: GridProgress) -> None:
        self.request, self.inputs, self.progress = request, inputs, progress
        # Futures by cell and range of images: a range that grew is another one, of which only
        # the new images are drawn.
        self.images: dict[tuple[int, int, int], Any] = {}
        self.features: dict[tuple[int, int, int], Any] = {}
        self.rows: dict[int, dict[str, Any]] = {}
        self.failures: dict[int, str] = {}

    def nfe(self, cell: GridCell) -> int:
        """Network calls an image: guidance asks twice, with the class and without."""
        return cell.sampler.steps * (1 if cell.sampler.guidance_scale in (0.0, 1.0) else 2)

    def score(self, cells: Sequence[int], n: int) -> dict[int, dict[str, Any]]:
        """Extends cells to n images each and scores them; failed cells are missing."""
        self.progress.say(f"{len(cells)} cells at {n} images each")
        request = replace(self.request, n_images=n)
        costly_first = sorted(cells, key=lambda i: -self.inputs.cells[i].sampler.steps)
        for i in costly_first:
            self._extend(request, i)
        work = {i: self._submit_score(request, i) for i in costly_first}
        return {i: row for i in cells if (row := self._landed(request, i, work[i])) is not None}

    def _extend(self, request: GridRequest, i: int) -> None:
        cell = self.inputs.cells[i]
        new = [place for place in request.shards() if (i, *place) not in self.images]
        for place, future in zip(new, submit_images(request, self.inputs, cell, new), strict=True):
            future.add_done_callback(partial(self.progress.shard_done, cell))
            self.images[i, *place] = future

    def _submit_score(self, request: GridRequest, i: int) -> CellFutures:
        places = [(i, *place) for place in request.shards()]
        new = [place for place in places if place not in self.features]
        shards = [(start, self.images[i, start, stop]) for _, start, stop in new]
        submitted = submit_features(request, self.inputs, self.inputs.cells[i], shards)
        self.features |= dict(zip(new, submitted, strict=True))
        shards, features = ([of[place] for place in places] for of in (self.images, self.features))
        return submit_score(request, self.inputs, self.inputs.cells[i], shards, features)

    def _landed(self, request: GridRequest, i: int, work: CellFutures) -> dict[str, Any] | None:
        if not work.wait():
            self.failures[i] = f"{work.cell.label} ({work.reason})"
            self.progress.say(f"failed: {self.failures[i]}")
            return None
        self.rows[i] = landed_row(request, self.inputs, work)
        return self.rows[i]
