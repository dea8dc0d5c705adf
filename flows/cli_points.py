"""The command `ddim swiss-roll`."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli_options import integers, numbers, one_sentence, option, require_writable

if TYPE_CHECKING:
    import pandas as pd


def swiss_roll(
    dataset: Annotated[
        str | None,
        option("swiss-roll, moons, circles, s-curve, checkerboard or gaussians [swiss-roll]."),
    ] = None,
    steps: Annotated[str | None, option("Numbers of steps S [10,20,50,100].")] = None,
    etas: Annotated[str | None, option("Values of eta in [0, 1] [0,0.5,1].")] = None,
    spacing: Annotated[
        str | None, option("uniform, quad, leading, linspace or trailing [uniform].")
    ] = None,
    n_points: Annotated[int | None, option("Points per sample [2048].")] = None,
    seed: Annotated[int | None, option("First training seed [0].")] = None,
    train_seeds: Annotated[int | None, option("Models to train [1].")] = None,
    sampling_seeds: Annotated[int | None, option("Samples per model and setting [5].")] = None,
    train_steps: Annotated[int | None, option("Training steps of a model.")] = None,
    threads: Annotated[int | None, option("Torch threads per task [1].")] = None,
    runner: Annotated[
        str | None, option("threads, processes, dask[:ADDRESS] or ray[:ADDRESS] [threads].")
    ] = None,
    workers: Annotated[int | None, option("Tasks at once [one per core].")] = None,
) -> None:
    """Train a noise model on points in the plane, and score DDIM samples of it over (S, eta)."""
    asked: dict[str, Any] = dict(locals())
    asked["steps"] = integers(steps) if steps is not None else None
    asked["etas"] = numbers(etas) if etas is not None else None
    _run({name: value for name, value in asked.items() if value is not None})


def _run(asked: dict[str, Any]) -> None:
    with one_sentence():
        require_writable()
        from flows.swiss_roll import PointRequest
        from flows.swiss_roll import swiss_roll as swiss_roll_flow

        given = inspect.signature(swiss_roll_flow.fn).bind(**asked)
        given.apply_defaults()
        PointRequest(**given.arguments)
        _show(swiss_roll_flow(**asked))


def _show(result: dict[str, Any]) -> None:
    """Prints the rows of one run, and where its report, the table and the runs are."""
    from flows.show_damage import told_of
    from tasks.point_table import read_point_rows

    found = read_point_rows(result["cells"])
    with told_of(found):
        _show_rows(result, found.frame)


def _show_rows(result: dict[str, Any], frame: pd.DataFrame) -> None:
    from ddim_core.point_score import interval
    from tasks import places
    from tasks.tracking import how_to_open

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
    typer.echo(f"\nreport:  {result['report']}")
    typer.echo(f"table:   {places.data_url('results', 'points')} (Parquet)")
    typer.echo(f"MLflow:  {how_to_open()}")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
