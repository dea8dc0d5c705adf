"""Where checkpoints appear: folders, MLflow, the hub; and when one of them is whole.

A source is a path or a pattern of paths (a folder means all that lies directly in it),
`models:/NAME` (all versions of a registered model), `experiment:NAME` (the artefact folder
`checkpoint` of an experiment's finished runs; `experiment:NAME#PATH` names another), or
`hub:OWNER/NAME` (the heads of a repository's branches and tags; `hub:OWNER/NAME@REVISION` one).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_core.checkpoints.convert import source_files
from ddim_core.common.digest import digest
from ddim_core.common.plain_files import (
    PlainFileError,
    is_folder,
    read_json,
    require_plain_tree,
    walk,
)
from ddim_core.pipelines.single_file import is_single_file
from tasks.checkpoints.addresses import (
    a_place_of,
    averaged,
    may_hold_several,
    paths_of,
    require_source,
)
from tasks.checkpoints.hub import hub_download, hub_heads
from tasks.storage import places, store
from tasks.tracking.models import download, model_versions, resolved, run_checkpoints

FOLDER = "checkpoint"
MOST_SNAPSHOTS = 200  # of one place: all their cells are compared with each other


@dataclass(frozen=True)
class Candidate:
    """Something that may be a checkpoint.

    Attributes:
        address: An absolute path, or where MLflow or the hub have it.
        stamp: Changes whenever its content may have changed; of a path made of the names, sizes
            and times of its files. What has a version or a commit never changes.
    """

    address: str
    stamp: str

    @property
    def is_local(self) -> bool:
        return self.stamp != "fixed"


def candidates(source: str) -> list[Candidate]:
    """Returns what a source shows now, in order of name or age.

    Raises:
        ValueError: If the source cannot be, or does not answer.
    """
    require_source(source)
    kind, colon, rest = source.partition(":")
    if source.startswith("models:/"):
        name = rest.removeprefix("/")
        one = "@" in name or "/" in name
        return [
            Candidate(a, "fixed") for a in ([resolved(source)] if one else model_versions(name))
        ]
    if kind == "experiment" and colon:
        name, _, path = rest.partition("#")
        return [Candidate(a, "fixed") for a in run_checkpoints(name, path or FOLDER)]
    if kind == "hub" and colon:
        return [Candidate(address, "fixed") for address in hub_heads(rest)]
    return [Candidate(str(path), stamp_of(path)) for path in paths_of(source)]


def brought(candidate: Candidate) -> Path:
    """Returns where a candidate lies on this machine; what is elsewhere is fetched, once.

    Raises:
        ValueError: If it cannot be fetched.
    """
    if candidate.address.startswith("hub:"):
        return hub_download(candidate.address)
    return Path(candidate.address) if candidate.is_local else download(candidate.address)


def read_whole(candidate: Candidate, digest_of: Callable[[str], str]) -> tuple[Path, str]:
    """Returns a checkpoint's place and its content digest, once it is whole.

    Whole means: it opens as a checkpoint (all files are there, and weights have the length that
    their header promises), and nothing in it changed while it was read. The caller has seen the
    same stamp some seconds before. A writer that pauses for longer with all files complete in form
    is not recognised; one that renames the finished folder into place always is.

    Args:
        candidate: What a source showed.
        digest_of: Opens what lies in a place, and returns its content digest.

    Raises:
        ValueError: If it is not whole, or cannot be opened; the message says what is wrong.
    """
    path = brought(candidate)
    require_plain_tree(path)
    weights = digest_of(str(path))
    if candidate.is_local and stamp_of(path) != candidate.stamp:
        raise ValueError(f"{path.name} is still being written")
    return path, weights


def stamp_of(path: Path) -> str:
    """Returns the digest of the names, sizes and times of all files of a path; hidden ones too.

    What cannot be looked at (a circle of links, a thousand nested folders) has a stamp that says
    so: it is told when it is read, and the others go on.
    """
    several = is_folder(path)
    try:
        inside = walk(path, hidden=True) if several else []
    except PlainFileError as error:
        return digest(str(error))
    files = [path / name for name in inside] if several else [path]
    seen = []
    for file in files:
        try:
            status = file.stat()
        except FileNotFoundError:
            continue  # renamed meanwhile: the next stamp differs
        except OSError as error:
            seen.append([str(file.relative_to(path)), -1, str(error.errno)])
            continue
        seen.append([file.relative_to(path).as_posix(), status.st_size, str(status.st_mtime_ns)])
    return digest(seen)


def recall(subject: str, stamp: str) -> Any:
    """Returns what was remembered of a subject at this stamp; None if nothing was."""
    try:
        record = read_json(_memory(subject))
        return record["value"] if record["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(subject: str, stamp: str, value: Any) -> None:
    """Notes something of a subject on this machine, so that it need not be worked out again."""
    text = json.dumps({"subject": subject, "stamp": stamp, "value": value})
    store.write_whole(str(_memory(subject)), text.encode())


def _memory(subject: str) -> Path:
    return places.local_dir("work", "watch", f"{digest(subject)[:32]}.json")


def snapshots_in(location: str) -> tuple[list[str], list[str]]:
    """Returns the checkpoints that a location stands for, by the numbers in their names, and what
    in it is none, in words.

    A folder that holds several checkpoints, or a pattern of paths, stands for these; everything
    else is one checkpoint, and stands for itself.

    Raises:
        ValueError: If it cannot be a location, or there is no checkpoint, or more than 200.
    """
    a_place_of(location)
    if not may_hold_several(location):
        return [location], []
    if not Path(location).is_dir() and (of := averaged(location)):
        return of.each, []
    if Path(location).is_dir() and _why_none(Path(location)) is None:
        return [location], []
    found: list[str] = []
    others = []
    for path in sorted(paths_of(location), key=_by_numbers):
        reason = _why_none(path)
        if reason is None:
            found.append(str(path))
        else:
            others.append(f"{path.name} is left out: {reason}")
        if len(found) > MOST_SNAPSHOTS:
            raise ValueError(
                f"{location!r} holds more than {MOST_SNAPSHOTS} checkpoints; name fewer, such as "
                "by a pattern"
            )
    if not found:
        told = f" ({'; '.join(others[:3])})" if others else ""
        raise ValueError(f"{location!r} holds no checkpoint{told}")
    return found, others


def _by_numbers(path: Path) -> list[tuple[str, int]]:
    """Sorts step-300 before step-1000."""
    parts = re.findall(r"(\D*)(\d*)", path.name)
    return [(text, int(number or 0)) for text, number in parts]


def _why_none(path: Path) -> str | None:
    """Why a path is no checkpoint by its files' names; None if it is one."""
    try:
        require_plain_tree(path)
        if not is_single_file(path):
            source_files(path)
    except (ValueError, OSError) as error:
        return str(error)
    return None
