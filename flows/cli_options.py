"""What the commands share: options, lists of numbers, and how a command stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import typer


def option(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


def integers(text: str) -> list[int]:
    return _parsed(text, int, "a list of whole numbers, such as 10,20,50")


def numbers(text: str) -> list[float]:
    return _parsed(text, float, "a list of numbers, such as 0,0.5,1")


def stop(message: str, code: int) -> NoReturn:
    """Ends with one clear sentence and an exit code."""
    typer.echo(f"ddim: {message}", err=True)
    raise typer.Exit(code)


def _parsed(text: str, kind: Callable[[str], Any], wanted: str) -> list[Any]:
    try:
        return [kind(part) for part in text.strip("[] ").split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {wanted}") from None
