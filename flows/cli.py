"""The `ddim` command: thin doors to the flows. Exit codes: 0 done, 1 the work failed, 2 bad input.

Flows are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import inspect
import os
from typing import Annotated, Any

import typer

from flows.cli_base import train_base
from flows.cli_data import data
from flows.cli_deploy import ANY_MORE, deploy_run
from flows.cli_lora import lora
from flows.cli_options import integers, numbers, one_sentence, option, require_writable, stop
from flows.cli_paper import paper
from flows.cli_points import swiss_roll
from flows.cli_score import export, score
from flows.cli_until import (
    AskedGoal,
    Budget,
    Confidence,
    UntilDecided,
    refuse_race_options,
    run_until_decided,
)
from flows.cli_upkeep import guard, track
from flows.cli_verdict import curve, verdict
from flows.cli_watch import announce, watch

app = typer.Typer(
    help="Which sampler setting should this checkpoint ship with, and did the new one get better?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Runs before every command: plain lines in the terminal, Prefect's own log in its UI."""
    os.environ.setdefault("DDIM_TERMINAL", "1")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@app.command()
def grid(
    checkpoint: Annotated[
        str | None,
        option("Folder, file, hub id or MLflow address; none: train a toy."),
    ] = None,
    dataset: Annotated[
        str | None, option("digits, emoji, a folder, a .parquet file or owner/name.")
    ] = None,
    split: Annotated[str | None, option("The part that is the reference [train, or all].")] = None,
    resolution: Annotated[int | None, option("Pixels, to train on your own data.")] = None,
    steps: Annotated[str | None, option("Numbers of steps S [5,10,20,50].")] = None,
    etas: Annotated[str | None, option("Values of eta in [0, 1] [0,0.2,0.5,1].")] = None,
    sigma_hat: Annotated[bool | None, option("Also the larger DDPM variance [on].")] = None,
    spacing: Annotated[
        str | None, option("uniform, quad, leading, linspace or trailing [uniform].")
    ] = None,
    clip: Annotated[bool | None, option("Clip each predicted x0 to [-1, 1] [off].")] = None,
    guidance: Annotated[str | None, option("Guidance scales, with classes [1].")] = None,
    n_images: Annotated[int | None, option("Images per cell [2048].")] = None,
    features: Annotated[
        str | None,
        option(
            "classifier, pixels, inception-v3, afhq-inception, clip-vit-b-32, dinov2-vit-b-14 "
            "[classifier]."
        ),
    ] = None,
    feature_weights: Annotated[str | None, option("File, folder or hub id of its weights.")] = None,
    resize: Annotated[
        str | None, option("Native size to network: tf1, clean, torch [its usual one].")
    ] = None,
    matrix_images: Annotated[
        int | None, option("Images of the best cell that every protocol scores; 0: none [64].")
    ] = None,
    seed: Annotated[int | None, option("Keys every image's random stream [0].")] = None,
    shard_size: Annotated[int | None, option("Images per unit of work [2048].")] = None,
    batch_size: Annotated[int | None, option("Images per network call [256].")] = None,
    threads: Annotated[int | None, option("Torch threads per task [1].")] = None,
    device: Annotated[str | None, option("cpu, or cuda (untested) [cpu].")] = None,
    train_steps: Annotated[int | None, option("Training steps of the toy.")] = None,
    class_conditional: Annotated[bool | None, option("Train the toy with labels [off].")] = None,
    weights: Annotated[str | None, option("ema or raw, where a checkpoint has both [ema].")] = None,
    noise_schedule: Annotated[
        str | None, option("linear, quad, cosine, ... [the checkpoint's own].")
    ] = None,
    prediction_type: Annotated[
        str | None, option("epsilon, sample, v_prediction [the checkpoint's own].")
    ] = None,
    prompts: Annotated[
        str | None, option("Prompts, one a line, or .jsonl [the data set's captions].")
    ] = None,
    max_broken: Annotated[int | None, option("Broken images to leave out at most [0].")] = None,
    background: Annotated[str | None, option("Colour under transparency [white].")] = None,
    skin_tones: Annotated[bool | None, option("Emoji with all skin tones [on].")] = None,
    runner: Annotated[
        str | None, option("threads, processes, dask[:ADDRESS] or ray[:ADDRESS] [threads].")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            "--reference",
            show_default=False,
            help="Compare with: a checkpoint, models:/NAME@ALIAS, previous, none [previous].",
        ),
    ] = None,
    at: Annotated[str | None, option("Cell that decides, such as 20,0.5 [the best].")] = None,
    margin: Annotated[float | None, option("FID difference that does not count [0].")] = None,
    gate: Annotated[bool | None, option("Fail if proven worse [off].")] = None,
    promote: Annotated[str | None, option("MLflow model whose champion is to be beaten.")] = None,
    workers: Annotated[int | None, option("Tasks at once [one per core].")] = None,
    until_decided: UntilDecided = False,
    confidence: Confidence = None,
    budget: Budget = None,
    goal: AskedGoal = None,
) -> None:
    """Score every (S, eta) of a grid on one checkpoint, and print the table."""
    asked = dict(locals())
    race = {name: asked.pop(name) for name in ("confidence", "budget", "goal")}
    asked.pop("until_decided")
    asked["steps"] = integers(steps) if steps is not None else None
    asked["etas"] = numbers(etas) if etas is not None else None
    asked["guidance"] = numbers(guidance) if guidance is not None else None
    given = {name: value for name, value in asked.items() if value is not None}
    if until_decided:
        run_until_decided(given | {k: v for k, v in race.items() if v is not None})
    else:
        refuse_race_options(race)
        _run_grid(given)


def _run_grid(asked: dict[str, Any]) -> None:
    with one_sentence():
        require_writable()  # before Prefect is imported, which makes its home there
        from flows.fid_grid import fid_grid
        from flows.request import GridRequest
        from flows.show import show_grid

        given = inspect.signature(fid_grid.fn).bind(**asked)
        given.apply_defaults()
        GridRequest(**given.arguments)
        show_grid(fid_grid(**asked))


@app.command()
def table(
    as_json: Annotated[bool, typer.Option("--json", help="Rows as JSON, all columns.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Which cells differ from the best of their kind.")
    ] = False,
    cell: Annotated[
        list[str] | None, option("Only this cell, by the first letters of its digest; repeatable.")
    ] = None,
) -> None:
    """Print all rows of the results table, or their paired comparisons."""
    with one_sentence():
        from flows.show import show_table
        from flows.show_compare import chosen, show_comparisons
        from flows.show_damage import told_of
        from tasks.cell_rows import read_rows

        found = read_rows()
        with told_of(found):
            frame = chosen(found.frame, cell or [])
            if compare:
                show_comparisons(frame, one_set=bool(cell), as_json=as_json)
            elif as_json:
                typer.echo(frame.to_json(orient="records", date_format="iso", indent=2))
            else:
                show_table(frame)


@app.command()
def report() -> None:
    """Say where the reports are, newest last."""
    from tasks.report import report_places

    found = report_places()
    if not found:
        stop("there is no report yet; run `ddim grid` first", 2)
    typer.echo("\n".join(found))


@app.command()
def train(
    dataset: Annotated[
        str | None, option("digits, emoji, a folder, a .parquet file or owner/name.")
    ] = None,
    resolution: Annotated[int | None, option("Pixels, to train on your own data.")] = None,
    train_steps: Annotated[int | None, option("Optimiser steps.")] = None,
    seed: Annotated[int | None, option("Keys weights, batches and noise [0].")] = None,
    class_conditional: Annotated[bool | None, option("Tell it the classes [off].")] = None,
    max_broken: Annotated[int | None, option("Broken images to leave out at most [0].")] = None,
    background: Annotated[str | None, option("Colour under transparency [white].")] = None,
    skin_tones: Annotated[bool | None, option("Emoji with all skin tones [on].")] = None,
) -> None:
    """Train the small U-Net of a data set, as a folder that diffusers opens."""
    asked = {name: value for name, value in dict(locals()).items() if value is not None}
    with one_sentence():
        require_writable()
        from flows.train_toy import train_toy

        typer.echo(f"checkpoint: {train_toy(**asked)['checkpoint']}")


app.command("swiss-roll")(swiss_roll)
app.command("paper")(paper)
app.add_typer(lora, name="lora")
app.command("train-base")(train_base)
app.command("score")(score)
app.command("export")(export)
app.command("data")(data)
app.command("deploy-run", context_settings=ANY_MORE)(deploy_run)
app.command("track")(track)
app.command("guard")(guard)
app.command("verdict")(verdict)
app.command("curve")(curve)
app.command("watch")(watch)
app.command("announce")(announce)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
