"""Checks a value against what its field is declared to be, and says in words what is wrong.

A field of a record says its type, bounds and meaning in one place, as pydantic has it:

    rank: Annotated[int, Field(ge=1, description="Rows of A and columns of B.")] = 4
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ddim_core.common.checks import nearest

BOUNDS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
KINDS = (("int", "a whole number"), ("float", "a number"), ("bool", "on or off"),
         ("finite", "a finite number"), ("string", "text"), ("tuple", "a list"))  # fmt: skip


def settle(record: Any) -> None:
    """Checks the declared fields of a frozen record, on its construction, and gives each the type
    it is declared to have: a whole number given for a float becomes one, so that two ways to write
    one setting (0, 0.0 and -0.0) have one digest.

    Raises:
        ValueError: For the first value that cannot be, with what would be right.
    """
    kind_of_record: Any = type(record)
    for name, kind in _kinds(kind_of_record):
        value = checked(name, kind, getattr(record, name))
        object.__setattr__(record, name, value + 0.0 if isinstance(value, float) else value)


def checked(name: str, kind: Any, value: Any) -> Any:
    """Returns a value in its declared type.

    Raises:
        ValueError: If it cannot be, with what would be right.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ValueError(_sentence(name, *error.errors())) from None


@cache
def _kinds(record: Any) -> list[tuple[str, Any]]:
    hints = get_type_hints(record, include_extras=True)
    return [(name, kind) for name, kind in hints.items() if get_origin(kind) is Annotated]


_adapters: dict[int, tuple[Any, TypeAdapter[Any]]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Made once for each annotation, which may hold what has no hash; kept with its annotation."""
    if id(kind) not in _adapters:
        _adapters[id(kind)] = (kind, TypeAdapter(kind))
    return _adapters[id(kind)][1]


def _sentence(name: str, error: Any, *others: Any) -> str:
    """Says the first of pydantic's errors as we do: the value, and what would be right; with the
    words that the value could be as well."""
    value, about = error["input"], error.get("ctx", {})
    if error["type"] == "literal_error":
        choices = about["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return (
            f"{name} is {value!r}; it must be one of {', '.join(choices)}"
            f"{nearest(str(value), choices)}"
        )
    for bound, said in BOUNDS:
        if bound in about:
            return f"{name} is {value}; it must be {said} {about[bound]:.12g}"
    if error["type"] == "value_error":
        return f"{name}: {about['error']}"
    if error["type"] == "too_short":
        return f"{name} is empty; give at least one"
    for start, said in KINDS:
        if error["type"].startswith(start):
            words = dict.fromkeys(
                each["ctx"]["expected"].replace("'", "") for each in others
                if each["type"] == "literal_error" and each["input"] is value
            )  # fmt: skip
            return f"{name} is {value!r}; it must be {' or '.join([said, *words])}"
    return f"{name} is {value!r}: {error['msg']}"
