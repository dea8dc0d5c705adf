"""Errors of the outside world, told without its passwords."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from ddim_core.common.redaction import redacted

P = ParamSpec("P")
R = TypeVar("R")


class OutsideError(RuntimeError):
    """What another system answered, with secrets hidden."""


def without_secrets(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a function's errors fit for logs: the original, which may name a server with its
    password, is not chained."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # any may name a server; each is raised again
            hidden = redacted(str(error))
            if hidden == str(error):
                raise
            raise OutsideError(f"{type(error).__name__}: {hidden}") from None

    return guarded
