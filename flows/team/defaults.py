"""Reads ddim.toml: values of parameters that a command takes where no option gives them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ddim_core.common.checks import nearest
from ddim_core.common.foreign import Content
from ddim_core.common.plain_files import is_there
from ddim_core.common.printable import printable
from ddim_core.common.redaction import has_credentials, has_password, redacted
from ddim_core.safe_files.settings import read_toml
from flows.requests.base import BaseRequest
from flows.requests.flat import Parameter, in_words, parameters
from flows.requests.grid import GridRequest
from flows.requests.lora import StyleRequest, SubjectRequest
from flows.requests.lora_score import LoraScoreRequest
from flows.requests.models import PointRequest, ToyRequest
from flows.requests.paper import PaperRequest
from flows.requests.race import RaceRequest, SnapshotRequest
from flows.requests.tuning import TuneRequest

NAME, VARIABLE = "ddim.toml", "DDIM_CONFIG"
LONGEST = 100  # characters of a name that is shown
ALWAYS_GIVEN = "checkpoints"  # several, by which `ddim grid` knows that it is to rank them
FLOWS: dict[str, Any] = {
    "fid-grid": GridRequest, "until-decided": RaceRequest,
    "snapshots": SnapshotRequest, "paper": PaperRequest,
    "swiss-roll": PointRequest, "train-toy": ToyRequest, "train-base": BaseRequest,
    "lora-style": StyleRequest, "lora-subject": SubjectRequest,
    "lora-score": LoraScoreRequest, "tune": TuneRequest,
}  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """Values of a record's parameters that a file gives.

    Attributes:
        place: The file.
        values: By the parameter's name.
    """

    place: Path
    values: Mapping[str, Any]

    @property
    def line(self) -> str:
        """What is taken, for people."""
        told = ", ".join(f"{name} = {in_words(value)}" for name, value in self.values.items())
        return printable(redacted(f"{self.place}: {told}"))


def taken(record: Any, given: Mapping[str, Any]) -> Taken | None:
    """Returns what the nearest ddim.toml says of the parameters of a record that are not given.

    A key at the top counts wherever a parameter of that name means what it means to `fid-grid`; one
    in a table counts in the flow of the table's name alone, and beats the other.

    Args:
        record: What can be asked for.
        given: What is asked for, by name.

    Returns:
        None where there is no file, or nothing of this record in it.

    Raises:
        ValueError: If the file cannot be read, or holds a key that is no parameter.
    """
    place = nearest_file()
    if place is None:
        return None
    shared, tables = _read(place)
    known = {parameter.name: parameter for parameter in parameters(record)}
    values = {
        name: value
        for name, value in shared.items()
        if name in known and _shared()[name].description == known[name].description
    }
    of_flow = [flow for flow, kind in FLOWS.items() if kind is record]
    values |= {name: value for flow in of_flow for name, value in tables.get(flow, {}).items()}
    values = {name: value for name, value in values.items() if name not in given}
    return Taken(place, values) if values else None


def nearest_file() -> Path | None:
    """Returns the file that DDIM_CONFIG names, or else ddim.toml of this folder or of the nearest
    one above that has one; None where there is none, or DDIM_CONFIG is set and empty.

    Raises:
        ValueError: If the named one is not there, or the found one is another user's, who could so
            have our commands do as he likes.
    """
    if (named := os.environ.get(VARIABLE)) is not None:
        if not named:
            return None
        if not is_there(Path(named)):
            raise ValueError(f"{VARIABLE} is {named!r}, and there is no such file; name one")
        return Path(named)
    here = Path.cwd()
    found = next((p for up in (here, *here.parents) if is_there(p := up / NAME)), None)
    if found is not None and {found.lstat().st_uid, found.stat().st_uid} - {os.getuid(), 0}:
        raise ValueError(
            f"{found} belongs to another user; set {VARIABLE} to it if you trust it, or to nothing "
            f"({VARIABLE}=) to do without"
        )
    return found


def _read(place: Path) -> tuple[Content, dict[str, Content]]:
    """The file's keys at the top, and its tables by flow; each name is one that there is."""
    try:
        told = read_toml(place)
    except ValueError as error:
        raise ValueError(f"{place.parent}/{error}") from None  # which begins with its name
    tables = {name: value for name, value in told.items() if isinstance(value, dict)}
    shared = {name: value for name, value in told.items() if name not in tables}
    for name in shared:
        _require_known(place, "parameter", name, _shared())
    for flow, table in tables.items():
        _require_known(place, "flow", flow, FLOWS)
        names = {p.name: p for p in parameters(FLOWS[flow]) if p.name != ALWAYS_GIVEN}
        for name in table:
            _require_known(place, f"parameter of {flow}", name, names)
    for name, value in (*shared.items(), *(pair for t in tables.values() for pair in t.items())):
        if has_credentials(str(value)) or has_password(str(value)):
            raise ValueError(
                f"{place} has {name} = {redacted(str(value))!r}, which carries credentials; leave "
                "them out, and give them by the environment"
            )
    return shared, tables


@cache
def _shared() -> dict[str, Parameter]:
    """What may stand at the top: the parameters of a grid, and of the race over its cells."""
    return {p.name: p for record in (RaceRequest, GridRequest) for p in parameters(record)}


def _require_known(place: Path, what: str, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        shown = printable(name)[:LONGEST]
        raise ValueError(
            f"{place} has {shown}, and there is no {what} {shown}{nearest(shown, known)}; there "
            f"are {', '.join(known)}"
        )
