"""The commands `ddim watch` and `ddim announce`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ddim_core.common.printable import printable
from ddim_core.common.redaction import redacted
from flows.cli.commands.command import from_file
from flows.cli.commands.options import one_sentence, option, plain, require_writable, stop
from flows.requests.flat import Given
from flows.requests.grid import GridRequest
from flows.requests.lora_score import LoraScoreRequest
from flows.requests.tuning import TuneRequest
from flows.requests.watch import OF, SHARED, Watch


def watch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folder, pattern of paths, models:/NAME, experiment:NAME or hub:OWNER/NAME "
            "[$DDIM_WATCH, or DDIM_DATA/incoming]."
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", help="Of the grid, as NAME=JSON: steps='[10,20]'; repeat."),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option("--tune", help="Tune each too, on the grid's images: a parameter of `ddim "
                     "tune` as NAME=JSON, such as calls='[4,8]'; repeat."),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option("--lora", help="Score LoRAs, not checkpoints: a parameter of `ddim lora score`"
                     " as NAME=JSON, such as prompts=prompts.txt; repeat."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    every: Annotated[float, option("Seconds between looks [60].")] = 60.0,
    settle: Annotated[float, option("Seconds that files must stay as they are [5].")] = 5.0,
    attempts: Annotated[int, option("Starts for a checkpoint whose runs fail [3].")] = 3,
    here: Annotated[
        bool | None,
        typer.Option("--here/--deployed", show_default=False,
                     help=plain("Run grids in this process [only if PREFECT_API_URL is not set].")),
    ] = None,
    as_deployed: Annotated[
        bool, typer.Option("--as-deployed", help="As the deployment checkpoint-watch has it.")
    ] = False,
) -> None:  # fmt: skip
    """Have every new checkpoint scored once, by the fid-grid deployment or in this process.

    Looks that find nothing new leave no run in Prefect.
    """
    require_writable()  # before Prefect is imported, which makes its home there
    with one_sentence():
        _require_sources(sources or [])
    if here is None:
        here = not os.environ.get("PREFECT_API_URL")
    if as_deployed and (sources or parameter or tune or lora):
        stop(
            "--as-deployed takes these from the deployment; leave out sources, -p, --tune and "
            "--lora",
            2,
        )
    grid = _parameters(parameter or [])
    shared = {name: value for name, value in grid.items() if name in SHARED}
    asked = Watch(
        sources or [], grid if as_deployed or lora else _settled_for(GridRequest, grid), settle,
        attempts, here, _settled_for(TuneRequest, _parameters(tune), shared) if tune else None,
        _settled_for(LoraScoreRequest, _parameters(lora)) if lora else None,
    )  # fmt: skip
    told: dict[str, str] = {}
    if once:
        with one_sentence():
            _look(_settled(asked, as_deployed), told)
        return
    while True:
        try:
            _look(_settled(asked, as_deployed), told)
        except ValueError as error:
            stop(str(error), 2)
        except Exception as error:  # a server that is away, a grid that failed: look again
            typer.echo(f"ddim: {redacted(str(error))}", err=True)
        time.sleep(every)


def _shown(asked: Watch) -> AbstractContextManager[None]:
    from flows.run import waiting

    return waiting.shown(f"watch: looking at {', '.join(asked.sources) or 'the usual places'}")


def _require_sources(sources: list[str]) -> None:
    """Refuses what could never be a source before Prefect is told of it, again and again."""
    from tasks.checkpoints.addresses import listed_sources, require_source

    for source in sources or listed_sources():
        require_source(source)


def _settled(asked: Watch, as_deployed: bool) -> Watch:
    """What was asked for, or what the deployment has now."""
    if not as_deployed:
        return asked
    from flows.watch.quiet_look import deployed_watch

    return deployed_watch()


def _look(asked: Watch, told: dict[str, str]) -> None:
    """Runs the flow if there is anything new."""
    from flows.run.running import run
    from flows.watch.quiet_look import is_news
    from tasks.checkpoints.addresses import listed_sources

    first = not told
    with _shown(asked) if first else nullcontext():
        news = is_news(asked, told)
    if not news:
        if first:
            told["a first look"] = ""
            places = ", ".join(asked.sources or listed_sources())
            typer.echo(redacted(f"nothing new in {places}"))
        return
    with _shown(asked):
        seen = run("checkpoint_watch", vars(asked))
    if not seen:
        typer.echo(f"no checkpoint in {', '.join(asked.sources or listed_sources())}")
    for one in seen:
        known = f" {one.weights[:12]}" if one.weights else ""
        line = f"{one.address}{known}: {one.flow} {one.outcome} {one.remark}"
        typer.echo(printable(line.rstrip()))


def announce(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint that is whole.")],
) -> None:
    """Tell Prefect of a new checkpoint; its trigger has the grid started at once."""
    with one_sentence():
        from flows.run import waiting

        with waiting.shown(f"announce: {checkpoint}"):
            from flows.run.announce import announce as tell

            weights = tell(checkpoint)
        server = redacted(os.environ["PREFECT_API_URL"])
        typer.echo(f"announced {checkpoint} {weights[:12]} to {server}")


def _settled_for(record: Any, given: Given, elsewhere: Mapping[str, Any] | None = None) -> Given:
    """What is given of a flow's parameters, and what ddim.toml says of the others: not of those
    that are given elsewhere, or by what appears."""
    with one_sentence():
        return from_file(record, {**dict.fromkeys(OF), **(elsewhere or {}), **given}) | given


def _parameters(words: list[str]) -> Given:
    """Reads NAME=JSON as `prefect deployment run -p` does; what is no JSON is text."""
    read = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            stop(f"parameter {word!r} is not NAME=VALUE, such as steps='[10,20]'", 2)
        try:
            read[name.strip()] = json.loads(text)
        except (ValueError, RecursionError):
            read[name.strip()] = text
    return read
