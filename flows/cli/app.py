"""The `ddim` command: thin doors to the flows. Exit codes: 0 done, 1 the work failed, 2 bad input.

Flows are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import warnings
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from flows.cli.commands.command import deciding
from flows.cli.commands.data import data
from flows.cli.commands.deploy_run import ANY_MORE, deploy_run
from flows.cli.commands.flows import grid, paper, swiss_roll, train, train_base, tune
from flows.cli.commands.lora import lora
from flows.cli.commands.options import Commands, one_sentence, option, stop
from flows.cli.commands.score import export, score
from flows.cli.commands.ship import ship
from flows.cli.commands.team import init
from flows.cli.commands.upkeep import guard, serve, track
from flows.cli.commands.verdict import curve, verdict
from flows.cli.commands.watch import announce, watch


class Suggesting(Commands):
    """Asks of an option that there is none of which one was meant, as typer does of commands."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:  # typer's own class for it is private
            if near := getattr(error, "possibilities", None):
                (meant,) = get_close_matches(error.option_name, near, n=1, cutoff=0.0)  # type: ignore[attr-defined]
                error.message += f". Did you mean {meant}?"  # type: ignore[attr-defined]
                error.possibilities = []  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    cls=Suggesting,
    help="Which sampler setting should this checkpoint ship with, and did the new one get better?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Runs before every command: plain lines in the terminal, Prefect's own log in its UI."""
    # Of a damaged image; it is refused, or counted as skipped, in words of ours.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    os.environ.setdefault("DDIM_TERMINAL", "1")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


app.command("grid")(grid)


@app.command()
def table(
    as_json: Annotated[bool, typer.Option("--json", help="Rows as JSON, all columns.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Which cells differ from the best of their kind.")
    ] = False,
    cell: Annotated[
        list[str] | None, option("Only this cell, by the first letters of its digest; repeatable.")
    ] = None,
    decide_by: Annotated[
        str | None, option("Score that --compare compares, such as clip_score [fid].")
    ] = None,
    margin: Annotated[
        float | None,
        option("Of --compare: difference that does not count [as the grid's page has it]."),
    ] = None,
) -> None:
    """Print all rows of the results table, or their paired comparisons."""
    with one_sentence():
        from flows.cli.text.compare import chosen, show_comparisons
        from flows.cli.text.damage import told_of
        from flows.cli.text.table import show_table
        from tasks.storage.cell_rows import read_rows

        found = read_rows()
        with told_of(found):
            places = chosen(found.rows, cell or [])
            rows = [found.rows[i] for i in places]
            if compare:
                by = deciding(margin, decide_by)
                show_comparisons(rows, bool(cell), as_json, by.measure, by.margin)
            elif as_json:
                frame = found.frame.iloc[places]
                typer.echo(frame.to_json(orient="records", date_format="iso", indent=2))
            else:
                show_table(rows)


@app.command()
def report() -> None:
    """Say where the reports are: the page that lists all first, the newest last."""
    from tasks.reports.frame.index import index_places, report_places

    found = report_places()
    if not found:
        stop("there is no report yet; run `ddim grid` first", 2)
    typer.echo("\n".join([*index_places(), *found]))


app.command("tune")(tune)
app.command("train")(train)
app.command("swiss-roll")(swiss_roll)
app.command("paper")(paper)
app.add_typer(lora, name="lora")
app.command("train-base")(train_base)
app.command("score")(score)
app.command("export")(export)
app.command("ship")(ship)
app.command("data")(data)
app.command("deploy-run", context_settings=ANY_MORE)(deploy_run)
app.command("init")(init)
app.command("serve")(serve)
app.command("track")(track)
app.command("guard")(guard)
app.command("verdict")(verdict)
app.command("curve")(curve)
app.command("watch")(watch)
app.command("announce")(announce)


def main() -> None:
    """What the console script of an earlier installation calls; see `flows.cli.entry`."""
    from flows.cli.entry import main as enter

    enter()


if __name__ == "__main__":
    main()
