"""The commands `ddim verdict` and `ddim curve`: read the table, sample nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.commands.command import deciding
from flows.cli.commands.options import as_given, listed, one_sentence, option, plain, stop

TWINS = (
    "Trainings of one recipe that differ in their seed, A,B,C or a pattern of names: what two of "
    "them may differ by counts as none [none]."
)


def verdict(
    context: typer.Context,
    new: Annotated[str, typer.Argument(help="Checkpoint: folder, name or digest in the table.")],
    against: Annotated[
        str | None,
        typer.Option("--against", "--reference", show_default=False,
                     help=plain("The other: likewise, or models:/NAME@ALIAS [scored before it].")),
    ] = None,
    at: Annotated[str, option("Cell that decides, such as 20,0.5 [the best].")] = "",
    margin: Annotated[float | None, option("Difference that does not count [0].")] = None,
    decide_by: Annotated[
        str | None, option("Score that decides, such as clip_score [fid].")
    ] = None,
    gate: Annotated[bool, option("Exit 1 if proven worse [off].")] = False,
    twins: Annotated[str, option(TWINS)] = "",
) -> None:  # fmt: skip
    """Say whether a scored checkpoint is better, worse or tied with another scored one."""
    with one_sentence():
        from flows.cli.text.damage import told_of
        from flows.requests.images import VerdictChoice
        from flows.run import waiting
        from tasks.storage.cell_rows import read_rows

        by = deciding(margin, decide_by)
        table = read_rows()
        with told_of(table):
            named = listed(twins, str) if twins else []
            told = {name: value for name in ("margin", "decide_by")
                    if (value := getattr(by, name)) != getattr(VerdictChoice, name)}  # fmt: skip
            with waiting.shown(f"verdict: {new}"):
                from flows.grid.past_verdicts import verdict_of

                found = verdict_of(
                    table.rows, new, against or "", at, by.margin, table.remarks, by.decide_by,
                    named, as_given(context, told),
                )  # fmt: skip
            typer.echo("\n".join(found.sentences))
            typer.echo(f"verdict: {found.page}")
            if gate and found.call == "worse":
                stop(f"{new} is proven worse than {found.against}", 1)


def curve(
    context: typer.Context,
    names: Annotated[str, typer.Argument(help="Pattern of checkpoint names [*].")] = "*",
    cells: Annotated[
        list[str] | None,
        typer.Option("--cell", help=plain("S and eta, such as 20,0.5; several times [best five].")),
    ] = None,
    twins: Annotated[str, option(TWINS)] = "",
) -> None:
    """Draw FID with intervals over training steps, for the cells of the last scored grid."""
    with one_sentence():
        from flows.cli.text.damage import told_of
        from flows.run import waiting
        from tasks.storage.cell_rows import read_rows

        table = read_rows()
        with told_of(table):
            named = listed(twins, str) if twins else []
            with waiting.shown(f"curve: {names}"):
                from flows.grid.past_verdicts import curve_of

                place = curve_of(
                    table.rows, names, cells or [], table.remarks, named, as_given(context)
                )
            typer.echo(f"curve: {place}")
