"""A command made from a record of parameters: its options, their help in groups, its list texts."""

from __future__ import annotations

import inspect
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import Field

from flows.cli.commands.options import listed, one_sentence, plain, require_writable
from flows.requests.flat import (
    Given,
    Option,
    Parameter,
    Record,
    Without,
    build,
    in_words,
    parameters,
)
from flows.requests.images import VerdictChoice


def command(
    record: type[Record],
    run: Callable[[Record, Given], None],
    heeds: Callable[[Mapping[str, Any]], Any] | None = lambda _: None,
) -> Callable[..., None]:
    """Returns a function whose options are the parameters of a record.

    Args:
        record: What can be asked for.
        run: Does it; is told the record, and by name what was given. The command's help is the
            docstring of this function.
        heeds: Of what is given, the record whose parameters ddim.toml may give too, where that is
            another than `record`; None where no file counts.
    """
    found = parameters(record)

    def door(**given: Any) -> None:
        asked = {p.name: _read(p, given[p.name]) for p in found}
        asked = {name: value for name, value in asked.items() if value is not None}
        with one_sentence():
            if heeds is not None:
                asked |= from_file(heeds(asked) or record, asked)
            request = build(record, {p.name: asked[p.name] for p in found if p.name in asked})
            require_writable()
            run(request, asked)

    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(p.name, keyword, annotation=_option(p), default=None) for p in found
    ]
    door.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    door.__annotations__ = {p.name: _option(p) for p in found}
    door.__doc__ = run.__doc__
    return door


def flow_command(
    record: type[Record],
    flow: str,
    text: str,
    show: Callable[[Any], None],
) -> Callable[..., None]:
    """Returns the command that runs a flow by the parameters of a record.

    Args:
        record: What can be asked for.
        flow: NAME of `flows.NAME.NAME`.
        text: The command's help.
        show: Prints what it returned.
    """

    def run(request: Any, asked: Mapping[str, Any]) -> None:
        show(run_shown(request, flow, asked))

    run.__doc__ = text
    return command(record, run)


def run_shown(request: Any, flow: str, asked: Mapping[str, Any]) -> Any:
    """Runs the flow `flows.NAME.NAME` and returns what it returns; says what is about to be done,
    refuses what its files tell before a server starts, and shows that it goes on."""
    from flows.early.refuse import refuse
    from flows.run import waiting
    from flows.run.running import run

    with waiting.shown(request.line):
        refuse(request)
        return run(flow, asked)


@dataclass(frozen=True)
class HowToShow:
    """The command."""

    as_json: Annotated[
        bool, Field(description="Print what came of it as JSON, rows included."), Option("--json")
    ] = False


def run_as_asked(request: Any, flow: str, asked: Given) -> Any:
    """Runs a flow as `run_shown` does; in silence where its request, which has a `HowToShow` named
    `how`, asks for JSON."""
    asked = {name: value for name, value in asked.items() if name not in vars(request.how)}
    with no_lines_on_the_way() if request.how.as_json else nullcontext():
        return run_shown(request, flow, asked)


@contextmanager
def no_lines_on_the_way() -> Iterator[None]:
    """Keeps what flows say in the terminal out of the JSON."""
    before = os.environ.get("DDIM_TERMINAL", "")
    os.environ["DDIM_TERMINAL"] = ""
    try:
        yield
    finally:
        os.environ["DDIM_TERMINAL"] = before


def from_file(record: Any, given: Mapping[str, Any]) -> Given:
    """Returns what ddim.toml says of a record's parameters that are not given, and says so."""
    from flows.team.defaults import taken

    if "checkpoints" in given:  # a grid's `--checkpoint`, which may stand for several
        given = {**given, "checkpoint": given["checkpoints"]}
    found = taken(record, given)
    if found is None:
        return {}
    typer.echo(found.line, err=True)
    return dict(found.values)


@dataclass(frozen=True, kw_only=True)
class _Deciding:
    """What decides."""

    verdict: Annotated[VerdictChoice, Without(("against", "at", "twins", "gate", "promote"))]


def deciding(margin: float | None, decide_by: str | None) -> VerdictChoice:
    """Returns the margin and the score that decide: as given, as ddim.toml says, or the usual.

    Raises:
        ValueError: If one of them cannot be.
    """
    told = {"margin": margin, "decide_by": decide_by}
    given = {name: value for name, value in told.items() if value is not None}
    return build(_Deciding, given | from_file(_Deciding, given)).verdict


def _option(parameter: Parameter) -> Any:
    """The parameter as typer has it: empty where nothing is given, a list as one text."""
    marked = parameter.mark(Option)
    names = marked.name.split() if marked else []
    of = _element(parameter.plain)
    kind: Any = _plain(parameter.plain)
    if of is not None:
        kind = list[str] if marked and marked.repeated else str
    if names and not names[0].startswith("-"):
        told = plain(_first_sentence(parameter.description))
        return Annotated[kind | None, typer.Argument(metavar=names[0], help=told)]
    option = typer.Option(
        *names,
        help=plain(f"{_first_sentence(parameter.description)}{_default(parameter)}"),
        show_default=False,
        rich_help_panel=parameter.group,
    )
    return Annotated[kind | None, option]


def _read(parameter: Parameter, given: Any) -> Any:
    """A given value; of a list that is one text, its parts."""
    of = _element(parameter.plain)
    if of is None or given is None or isinstance(given, list):
        return given or None if isinstance(given, list) else given
    return listed(given, of)


def _plain(kind: Any) -> Any:
    """`int` of `int | None` and of `Annotated[int, ...]`; words of a choice, and what may be one of
    several kinds, are text."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [k for k in get_args(kind) if k is not type(None)]
        return _plain(kinds[0]) if len(kinds) == 1 else str
    return kind if kind in (int, float, bool, str) else str


def _element(kind: Any) -> Any:
    """`int` of `list[int]` or `tuple[int, ...] | None`; None of what is no list."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return next((_plain(get_args(k)[0]) for k in kinds if get_origin(k) in (list, tuple)), None)


def _first_sentence(text: str) -> str:
    return re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip(".") + "."


def _default(parameter: Parameter) -> str:
    """The default in brackets, where it is not told by the description."""
    told = parameter.usual or in_words(parameter.default)
    return f" [{told}]" if told else ""
