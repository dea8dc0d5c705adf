"""Writes docs/parameters.md from the declarations: `python -m flows.cli.document`; and makes the
site's page of each command."""

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


def command_pages() -> dict[str, str]:
    """Returns a page for each command by its name, as the command line declares it.

    Names are those after `ddim`: `grid`, `lora style`.
    """
    return {name: _command_page(name, found) for name, found in commands().items()}


def commands() -> dict[str, Any]:
    """Returns every command of `ddim` by its name, as click has it."""
    from typer.main import get_command

    from flows.cli.app import app

    found: dict[str, Any] = {}
    waiting = [("", get_command(app))]
    while waiting:
        name, one = waiting.pop(0)
        if under := getattr(one, "commands", None):
            waiting += [(f"{name} {word}".strip(), command) for word, command in under.items()]
        else:
            found[name] = one
    return dict(sorted(found.items()))


def _command_page(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join(["ddim", name, *(_usage(p) for p in arguments), "[OPTIONS]"])
    lines = [f"# ddim {name}\n\n{command.help}\n\n```\n{usage}\n```\n"]
    panels: dict[str, list[Any]] = {}
    for parameter in command.params:
        usual = "Arguments" if parameter in arguments else "Options"
        panel = getattr(parameter, "rich_help_panel", None) or usual
        panels.setdefault(panel, []).append(parameter)
    for panel, declared in panels.items():
        lines.append(f"\n## {panel}\n\n| name | meaning |\n|---|---|\n")
        lines += [f"| `{_name(p)}` | {_plain(p.help or '')} |\n" for p in declared]
    return "".join(lines) + "\nThe same by name and type: [parameters](../parameters.md).\n"


def _usage(argument: Any) -> str:
    name = _name(argument)
    return name if argument.required else f"[{name}]"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _plain(text: str) -> str:
    """Help as a cell of a table has it: without what typer's markup asks for."""
    return text.replace("\\[", "[").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


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
        return " or ".join("null" if k is type(None) else _type(k) for k in args)
    if origin is Literal:
        return "text"
    if origin in (list, tuple):
        return f"list of {_type(args[0])}"
    if hasattr(kind, "__metadata__"):
        return _type(args[0])
    return {int: "integer", float: "number", bool: "true or false", str: "text"}[kind]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
