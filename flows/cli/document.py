"""Writes docs/parameters.md from the declarations: `python -m flows.cli.document`."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from flows.requests.flat import Parameter, in_words, parameters
from flows.team.defaults import FLOWS

PAGE = Path(__file__).parents[2] / "docs" / "parameters.md"
HEAD = """# Parameters

Made by `python -m flows.cli.document` from the declarations in `flows/requests/`; a test
compares them. Names are those of the flows (`prefect deployment run FLOW/FLOW -p NAME=JSON`); the
command line has `--name-with-dashes`, and lists with commas.
"""


def page() -> str:
    """Returns the page: a section a flow, a table a group of its parameters."""
    return HEAD + "".join(_section(flow, record) for flow, record in FLOWS.items())


def _section(flow: str, record: type) -> str:
    lines, group = [f"\n## {flow}\n"], ""
    for parameter in parameters(record):
        if parameter.group != group:
            group = parameter.group
            lines += [f"\n**{group}**\n\n| name | type | default | meaning |\n|---|---|---|---|\n"]
        cells = (f"`{parameter.name}`", _type(parameter.plain), _default(parameter))
        lines.append(
            f"| {' | '.join(cells)} | {parameter.description.replace('|', chr(92) + '|')} |\n"
        )
    return "".join(lines)


def _default(parameter: Parameter) -> str:
    told = parameter.usual or in_words(parameter.default)
    return f"`{told}`" if told else "empty"


def _type(kind: Any) -> str:
    """A type in the words of people who write JSON."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return f"{_type(next(k for k in args if k is not type(None)))} or null"
    if origin is Literal:
        return "text"
    if origin in (list, tuple):
        return f"list of {_type(args[0])}"
    if hasattr(kind, "__metadata__"):
        return _type(args[0])
    return {int: "integer", float: "number", bool: "true or false", str: "text"}[kind]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
