"""What MLflow has still to be told: one JSON message a run below DDIM_DATA/outbox.

A message is put here before it is sent and taken away when it has arrived, so that neither a
tracking server that is away nor a kill loses it. Sending a message twice does no harm. A message
holds numbers and names of files to be: it carries its digest, and only plain names are heeded.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from ddim_core.safe_files.contained import require_plain_name
from tasks.storage import places, store
from tasks.storage.artifact import Report

ENVELOPE = {"message", "sha256"}
PARTS = {"experiment", "parent", "children", "report", "status"}
MOST_BYTES = 2**26

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What one MLflow run says; `identity` is the digest by which it is found again."""

    identity: str
    name: str
    tags: dict[str, str]
    parameters: dict[str, Any]
    metrics: dict[str, float]


@dataclass(frozen=True)
class Message:
    """A run with its children, its report, and how it ended."""

    experiment: str
    parent: Entry
    children: list[Entry]
    report: Report
    status: Literal["FINISHED", "FAILED"]


READ = TypeAdapter(Message)


def keep(name: str, message: Message) -> None:
    """Keeps a message, in place of an older one of the same name."""
    content = asdict(message)
    envelope = {"message": content, "sha256": _digest(content)}
    store.write_whole(_url(name), json.dumps(envelope).encode())


def waiting() -> dict[str, Message]:
    """Returns the messages that have not arrived yet, by name; one that cannot be read, or is not
    ours, is told of and left where it lies."""
    found, left = look()
    for name, reason in left.items():
        logger.warning("outbox/%s.json is left: %s", name, reason)
    return found


def look() -> tuple[dict[str, Message], dict[str, str]]:
    """Returns the messages that can be sent, and why others cannot, by name."""
    found, left = {}, {}
    for name in store.names_below(places.data_url("outbox")):
        if name.startswith(".") or not name.endswith(".json"):
            continue  # another process's draft
        key = name.removesuffix(".json")
        try:
            content = store.read_regular(places.data_url("outbox", name), MOST_BYTES)
            found[key] = opened(content)
        except FileNotFoundError:
            continue  # another process has sent it
        except (ValueError, OSError) as error:
            left[key] = f"{error}; run its grid again, then delete outbox/{key}.json"
    return found, left


def opened(content: bytes) -> Message:
    """Returns the message in a file's bytes; those of older versions carry no digest.

    Raises:
        ValueError: If it is damaged, or no message of ours.
    """
    try:
        message = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(message, dict):
        raise ValueError("it is no message")
    if set(message) != PARTS:  # of a version before the digest
        if set(message) != ENVELOPE or _digest(message["message"]) != message["sha256"]:
            raise ValueError("it is damaged, it does not have its digest")
        message = message["message"]
    _require_ours(message)
    return READ.validate_python(message)


def arrived(name: str) -> None:
    """Takes a message away; that another process has done so already is fine."""
    store.remove(_url(name))


def _require_ours(message: Any) -> None:
    """Anybody can write a digest: what is used as a place has to be a plain name as well."""
    report = message.get("report") if isinstance(message, dict) else None
    if not isinstance(report, dict) or set(message) != PARTS:
        raise ValueError("it is no message of this project")
    figures = report.get("figures")
    if not isinstance(figures, dict):
        raise ValueError("its report has no figures")
    for name in figures:
        require_plain_name(name, "its figure")
    for ref in (report.get("page"), *figures.values()):
        if not isinstance(ref, dict) or not store.SHA256.fullmatch(str(ref.get("artifact"))):
            raise ValueError("its report points to no artefact of the store")


def _digest(message: Any) -> str:
    return hashlib.sha256(json.dumps(message, sort_keys=True).encode()).hexdigest()


def _url(name: str) -> str:
    return places.data_url("outbox", f"{name}.json")
