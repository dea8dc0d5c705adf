"""What the commands share: options, lists of numbers, and how a command stops."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from ddim_core.common.printable import printable
from ddim_core.common.redaction import has_credentials, has_password, redacted
from ddim_core.samplers.name import split_samplers
from tasks.storage.places import require_usable

LONGEST = 4000  # characters of a message: strangers' names and columns have no end


class Commands(TyperGroup):
    """The commands, none of which takes a password in an address: Prefect, logs and the shell's
    history would keep it. None but `--help` goes on with a DDIM_DATA that cannot be."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Ends with exit code 2 before anything is started."""
        for word in args:
            if has_credentials(word) or has_password(word):
                stop(
                    f"{redacted(word)!r} carries credentials, which would be printed and kept; "
                    "leave them out, and give them by the environment",
                    2,
                )
        if "--help" not in args:
            try:
                require_usable()
            except ValueError as error:
                stop(str(error), 2)
        return super().parse_args(ctx, args)


def option(text: str, panel: str | None = None) -> Any:
    return typer.Option(help=plain(text), show_default=False, rich_help_panel=panel)


def as_given(context: typer.Context, told: Mapping[str, Any] | None = None) -> str:
    """Returns the command that is running, with the options that were given it, and those that
    ddim.toml told; no secrets."""
    told, words = told or {}, ["ddim", *context.command_path.split()[1:]]
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in told and (source is None or source.name != "COMMANDLINE"):
            continue
        value = told.get(name, context.params[name])
        option = parameter.param_type_name == "option"
        if isinstance(value, bool):
            words += parameter.opts[:1] if value else parameter.secondary_opts[:1]
            continue
        for one in value if isinstance(value, (list, tuple)) else [value]:
            # Hidden before it is quoted, which would take a secret with a quote apart.
            words += [*(parameter.opts[:1] if option else []), shlex.quote(redacted(str(one)))]
    return " ".join(words)


def plain(text: str) -> str:
    """Keeps typer from taking a default in brackets, such as [on], for markup."""
    return re.sub(r"\[(?=[a-z$])", r"\\[", text)


def listed(text: str, of: type) -> list[Any]:
    """Reads a list that is given as one text with commas."""
    if of is str:
        return split_samplers(text.removeprefix("[").removesuffix("]") if text[:1] == "[" else text)
    return integers(text) if of is int else numbers(text)


def integers(text: str) -> list[int]:
    return _parsed(text, int, "a list of whole numbers, such as 10,20,50")


def numbers(text: str) -> list[float]:
    return _parsed(text, float, "a list of numbers, such as 0,0.5,1")


def stop(message: str, code: int) -> NoReturn:
    """Ends with one clear sentence and an exit code."""
    short = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
    shown = "\n".join(printable(line) for line in redacted(short).split("\n"))
    typer.echo(f"ddim: {shown}", err=True)
    raise typer.Exit(code)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turns what goes wrong inside into one sentence and an exit code: 2 for bad input, 1 for work
    that failed, as by a disk that fills on the way."""
    from tasks.storage.store import StoreError

    try:
        yield
    except ValueError as error:
        stop(str(error), 2)
    except StoreError as error:
        stop(str(error), 1)
    except (typer.Exit, BrokenPipeError):  # of `| head`, which typer ends quietly
        raise
    except Exception as error:  # the end of the line: a user gets no stack trace
        stop(f"{type(error).__name__}: {error}" if not _planned(error) else str(error), 1)


def require_writable() -> None:
    """Stops before any work, with exit code 2, if DDIM_DATA cannot be written."""
    from tasks.storage.store import StoreError, check_writable

    try:
        check_writable()
    except StoreError as error:
        stop(str(error), 2)


def _planned(error: Exception) -> bool:
    """Tells the failures that flows report in their own words."""
    return type(error).__module__.startswith("flows.")


def _parsed(text: str, kind: Callable[[str], Any], wanted: str) -> list[Any]:
    try:
        return [kind(part) for part in text.strip("[] ").split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {wanted}") from None
