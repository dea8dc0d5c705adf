"""What a command says of rows that it could not show, and of those that it cannot vouch for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from ddim_core.common.redaction import redacted
from tasks.storage.row_files import Found


@contextmanager
def told_of(found: Found[Any]) -> Iterator[None]:
    """Says on standard error, after what is done inside, which rows were left out of it.

    Ends with exit code 1 if any was; then that is also why something inside is not found.
    """
    try:
        yield
    except ValueError as error:
        if not found.damaged:
            raise
        typer.echo(f"ddim: {redacted(str(error))}", err=True)
    finally:
        if found.unverified:
            typer.echo(f"ddim: {found.remarks[0]}", err=True)
        _name(found.damaged)
    if found.damaged:
        raise typer.Exit(1)


def end_with(damaged: Sequence[str]) -> None:
    """Names damaged rows on standard error, and ends with exit code 1 if there are any."""
    _name(damaged)
    if damaged:
        raise typer.Exit(1)


def _name(damaged: Sequence[str]) -> None:
    for sentence in damaged:
        typer.echo(f"ddim: {sentence}", err=True)
