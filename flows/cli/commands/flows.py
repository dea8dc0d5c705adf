"""The commands that run one flow each, but for the LoRAs': what is asked, what is shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from flows.cli.commands.command import (
    HowToShow,
    command,
    flow_command,
    no_lines_on_the_way,
    run_as_asked,
    run_shown,
)
from flows.cli.commands.options import stop
from flows.requests.base import BaseRequest
from flows.requests.flat import Given, Option, Without, build, parameters
from flows.requests.grid import GridRequest, ReportChoice
from flows.requests.images import ImageChoice, Machine, ScoreChoice, VerdictChoice
from flows.requests.models import CheckpointChoice, PointRequest, Toy, ToyRequest
from flows.requests.paper import PaperRequest
from flows.requests.race import (
    RaceChoice,
    RaceRequest,
    SnapshotChoice,
    SnapshotRequest,
    UntilDecided,
)
from flows.requests.samplers.choice import SamplerChoice
from flows.requests.tuning import TuneRequest
from tasks.checkpoints.addresses import a_place_of, may_hold_several

if TYPE_CHECKING:
    import pandas as pd

    from flows.paper import PaperOutcome
    from flows.swiss_roll import PointOutcome
    from flows.train_base import TrainedBase
    from flows.train_toy import TrainedToy


@dataclass(frozen=True)
class HowToRun:
    """The command."""

    until_decided: UntilDecided = False
    in_prefect: Annotated[
        bool, Field(description="Run it in Prefect even if nothing has changed.")
    ] = False
    as_json: Annotated[
        bool, Field(description="Print what came of it as JSON, rows included."), Option("--json")
    ] = False


@dataclass(frozen=True, kw_only=True)
class GridCommand:
    """A grid or a race over its cells, of one checkpoint or several."""

    of: SnapshotChoice
    model: Annotated[CheckpointChoice, Without(("checkpoint",))]
    toy: Toy
    real: ImageChoice
    grid: SamplerChoice
    scores: ScoreChoice
    verdict: VerdictChoice
    report: ReportChoice
    race: RaceChoice
    machine: Machine
    how: HowToRun


def _grid(command: GridCommand, asked: Given) -> None:
    """Score every cell (S, eta, sampler) of a grid on one checkpoint, and print the table; on
    several, rank them, each at its own best setting."""
    asked = {name: value for name, value in asked.items() if name not in vars(command.how)}
    places = [place for place in asked.pop("checkpoints", []) if place]
    if "etas" in asked:  # whoever names the lines gets these
        asked.setdefault("sigma_hat", False)
    how, several = command.how, _are_several(places)
    if several:
        asked["checkpoints"] = places
    elif places:  # else ddim.toml's may stand there
        asked["checkpoint"] = places[0]
    record = _of_grid(several, how.until_decided)
    known = {parameter.name for parameter in parameters(record)}
    unheeded = ", ".join(f"--{name.replace('_', '-')}" for name in asked if name not in known)
    if unheeded and several:
        stop(f"{unheeded} is of a grid of one checkpoint; leave it out, or give one checkpoint", 2)
    if unheeded and how.until_decided:
        stop(f"{unheeded} needs a whole grid; leave out --until-decided", 2)
    if unheeded:
        stop(f"{unheeded} needs --until-decided", 2)
    run = run_snapshots if several else run_race if how.until_decided else run_grid
    with no_lines_on_the_way() if how.as_json else nullcontext():
        run(asked, how)


def _heeded(asked: Mapping[str, Any]) -> type[GridRequest | RaceRequest | SnapshotRequest]:
    """The record whose parameters ddim.toml may give."""
    places = [place for place in asked.get("checkpoints", []) if place]
    return _of_grid(_are_several(places), asked.get("until_decided", False))


def _of_grid(
    several: bool, until_decided: bool
) -> type[GridRequest | RaceRequest | SnapshotRequest]:
    return SnapshotRequest if several else RaceRequest if until_decided else GridRequest


def _are_several(places: list[str]) -> bool:
    """Tells whether --checkpoint names several; a folder may hold them."""
    if len(places) != 1 or not may_hold_several(places[0]):
        return len(places) > 1
    a_place_of(places[0])  # what is wrong by its name alone is said before much is imported
    from tasks.checkpoints.arrivals import snapshots_in  # slow to import

    return snapshots_in(places[0])[0] != places


def run_snapshots(asked: Given, how: HowToRun) -> None:
    """Runs the grids of several checkpoints, or the race over them all, and prints the ranking.

    Where it is no race, shards are those of a grid, so that a grid of each one finds its images.
    """
    asked["until_decided"] = how.until_decided
    if not how.until_decided:
        asked.setdefault("shard_size", SamplerChoice.shard_size)
    request = build(SnapshotRequest, asked)
    result = run_shown(request, "snapshots", asked)
    from flows.cli.text.snapshots import show_snapshots

    show_snapshots(result, how.as_json)


def run_race(asked: Given, how: HowToRun) -> None:
    """Runs the race and prints what it decided."""
    request = build(RaceRequest, asked)
    result = run_shown(request, "until_decided", asked)
    from flows.cli.text.table import show_grid

    show_grid(result, how.as_json)


def run_grid(asked: Given, how: HowToRun) -> None:
    """Runs the grid, or takes what is kept of it where nothing has changed, and prints it."""
    request = build(GridRequest, asked)
    from flows.early.refuse import refuse
    from flows.grid.unchanged import keep_result, kept_result, state_of
    from flows.run import waiting
    from flows.run.running import run

    with waiting.shown(request.line):
        state = state_of(request)
        result = None if how.in_prefect else kept_result(state)
        known = result is not None
        if result is None:
            refuse(request)
            result = run("fid_grid", asked)
            keep_result(state, state_of(request), result)
    if known:
        said = "unchanged: all rows and the report are there (--in-prefect runs it again)"
        typer.echo(said, err=how.as_json)
    from flows.cli.text.table import show_grid

    show_grid(result, how.as_json)


def _show_paper(result: PaperOutcome) -> None:
    from flows.cli.text.table import show_grid
    from tasks.reports.paper import error_text

    typer.echo("\nSquared error per dimension after encoding and decoding, pixels in [0, 1]:")
    for record in result.reconstructions:
        error = error_text(record.error)
        typer.echo(f"  S = {record.steps:>4}  {error}  n = {record.n}")
    show_grid(result)


def _show_toy(result: TrainedToy) -> None:
    typer.echo(f"checkpoint: {result.checkpoint}")


@dataclass(frozen=True, kw_only=True)
class TuneCommand(TuneRequest):
    """What is tuned, how it is proven, and how what came of it is shown."""

    how: HowToShow


def _tune(request: TuneCommand, asked: Given) -> None:
    """Find the timesteps of few-step samplers by the checkpoint's own long run, and prove them."""
    outcome = run_as_asked(request, "tune", asked)
    from flows.cli.text.tuned import show_tuned

    show_tuned(outcome, request.how.as_json)


def _show_base(result: TrainedBase) -> None:
    for name, found in (("seen", result.seen), ("unseen", result.unseen)):
        shares = ", ".join(
            f"{q} {100 * x.share:.1f} % ({100 * (x.low or 0.0):.1f} to {100 * (x.high or 0.0):.1f})"
            for q, x in (
                ("subject", found.subject), ("background", found.background),
                ("style", found.style),
            )
        )  # fmt: skip
        typer.echo(f"{name} pairs, N = {found.n_images}: {shares}")
    typer.echo(f"base: {result.folder}")


def _show_points(result: PointOutcome) -> None:
    """Prints the rows of one run, and where its report, the table and the runs are."""
    from flows.cli.text.damage import told_of
    from tasks.points.table import read_point_rows

    found = read_point_rows(list(result.cells))
    with told_of(found):
        _show_rows(result, found.frame)


def _show_rows(result: PointOutcome, frame: pd.DataFrame) -> None:
    from ddim_core.points.score import interval
    from tasks.storage import places
    from tasks.tracking.address import how_to_open

    for training, rows in frame.groupby(["training_seed", "training_steps", "training_seconds"]):
        seed, n_steps, seconds = training
        first = rows.iloc[0]
        floor = interval(first["floor"], first["floor_low"], first["floor_high"])
        typer.echo(
            f"\n{first['dataset']}, model of training seed {seed} "
            f"({n_steps} steps in {seconds:.0f} s): Chamfer distance of "
            f"{first['n_points']} points, mean of {len(first['sampling_seeds'])} samples with "
            f"95 % interval; floor {floor}"
        )
        for row in rows.to_dict("records"):
            score = interval(
                row["chamfer"], _known(row["chamfer_low"]), _known(row["chamfer_high"])
            )
            typer.echo(f"  eta = {row['eta']:<4g} S = {row['steps']:>4}  {score}")
    typer.echo(f"\nreport:  {result.report}")
    typer.echo(f"table:   {places.data_url('results', 'points')} (Parquet)")
    typer.echo(f"MLflow:  {how_to_open()}")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


grid = command(GridCommand, _grid, heeds=_heeded)
paper = flow_command(
    PaperRequest,
    "paper",
    "Run the DDIM paper's tables and figures on one checkpoint, beside the paper's numbers.",
    _show_paper,
)
train = flow_command(
    ToyRequest,
    "train_toy",
    "Train the small U-Net of a data set, as a folder that diffusers opens.",
    _show_toy,
)
train_base = flow_command(
    BaseRequest,
    "train_base",
    "Train the small text-to-image base of the LoRA commands, and judge its pictures.",
    _show_base,
)
tune = command(TuneCommand, _tune, lambda _: TuneRequest)
swiss_roll = flow_command(
    PointRequest,
    "swiss_roll",
    "Train a noise model on points in the plane, and score DDIM samples of it over (S, eta).",
    _show_points,
)
