"""When a task's result may be used again: same inputs, same code, nothing missing, nothing planted.

Prefect keeps each result as a small JSON file below DDIM_DATA/prefect, named by its key, so that
all hosts with one DDIM_DATA share it. The key covers the task's inputs and all code of ours that
it runs. Before Prefect reads a record we look at it ourselves: Prefect lets the record choose how
it is deserialised (a record of type pickle would run code), and a record is worth nothing when
what it points to is damaged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_type_hints

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.serializers import JSONSerializer
from pydantic import Field, TypeAdapter

from ddim_core.common.digest import code_digest, digest
from ddim_core.devices.names import card_kind
from ddim_core.safe_files.contained import require_plain_path
from tasks.storage import places, stages, store
from tasks.storage.artifact import references
from tasks.storage.naming import run_name

CHECKSUM = "checksum"
P = ParamSpec("P")
R = TypeVar("R")

RESULTS = places.local_dir("prefect")  # where DDIM_DATA is a local path
# Inputs that say how and where the work is done, not what comes out: batch size, a path whose
# content is another input, what another input is encoded to. Of the device the kind counts, where
# it is a card.
NOT_IN_KEY = frozenset({"encoded", "execution", "location"})

logger = logging.getLogger(__name__)


class Records(WritableFileSystem):
    """Prefect's result records below a local path or any fsspec URL, each written whole."""

    url: str

    def _resolve_path(self, path: str) -> None:
        """Tells Prefect to name a record by its key alone."""

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Returns a record; both ways of calling, Prefect's flag chooses, are the same here."""
        return store.read(f"{self.url}/{require_plain_path(path, 'the record')}")

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        store.write_whole(f"{self.url}/{require_plain_path(path, 'the record')}", content)


RECORDS = Records(url=places.data_url("prefect"))


class PlainRecords(JSONSerializer):
    """A task's record as plain JSON, and back. A checksum goes with it, so that a result with a
    flipped bit is not trusted.

    Attributes:
        task: Its name, by which this process knows what the JSON is read as.
    """

    type: str = Field(default="ddim-record", frozen=True)
    object_encoder: str | None = None
    object_decoder: str | None = None
    task: str = ""  # as Prefect's server has it, which keeps the type alone

    def dumps(self, obj: Any) -> bytes:
        """Makes bytes of a record."""
        return json.dumps(with_checksum(asdict(obj))).encode()

    def loads(self, blob: bytes) -> Any:
        """Makes the record of bytes; ValueError if they are no such record."""
        return RETURNED[self.task].validate_python(json.loads(blob))


RETURNED: dict[str, TypeAdapter[Any]] = {}  # what each task returns, by its name


class OtherVersionError(RuntimeError):
    """A worker on another host has another version of this project than the flow it works for."""


@dataclass
class InputsAndCode(CachePolicy):
    """A key made of the task's inputs and of its file's code with all of `ddim_core` it imports."""

    def compute_key(
        self,
        task_ctx: TaskRunContext,
        inputs: dict[str, Any],
        flow_parameters: dict[str, Any],
        **kwargs: Any,  # Prefect's signature
    ) -> str:
        asked = {name: value for name, value in inputs.items() if name not in NOT_IN_KEY}
        execution = inputs.get("execution")
        if execution is not None and (kind := card_kind(execution.device)):
            asked["card"] = kind
        function = task_ctx.task.fn
        key = digest(function.__qualname__, code_digest(function.__module__), asked)
        if places.is_local():
            RESULTS.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_untrusted(f"{RECORDS.url}/{key}", task_ctx.task.result_serializer)
        return key


def cached_task(function: Callable[P, R]) -> Task[P, R]:
    """Makes a function that returns a record a Prefect task whose result is kept and used again."""

    code = code_digest(function.__module__)  # taken now: the code that runs is what was imported

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if code_digest(function.__module__) != code:  # `code` comes from the flow's host
            raise OtherVersionError(
                f"the code of {function.__module__} on {socket.gethostname()} is not the flow's; "
                "install the same version of ddim-flows and of Python on all hosts"
            )
        with stages.running(function.__name__.replace("_", " ")):
            return function(*args, **kwargs)

    name = function.__name__.replace("_", "-")
    RETURNED[name] = TypeAdapter(get_type_hints(function)["return"])
    made = task(
        name=name,
        task_run_name=run_name(name),
        cache_policy=InputsAndCode(),
        persist_result=True,
        result_serializer=PlainRecords(task=name),
        cache_result_in_memory=False,
    )(checked)
    # Not above: there Prefect wants a storage that is registered with a server.
    made.result_storage = RECORDS
    return made


def refuse_untrusted(url: str | Path, serializer: Any) -> None:
    """Deletes a result that is not exactly what the serializer wrote, or whose artefacts are not
    all intact.

    The task then runs again and writes a good one.
    """
    key = str(url).rsplit("/", 1)[-1]
    try:
        reason = _distrust(store.read(str(url)), key, serializer)
    except FileNotFoundError:
        return
    if reason:
        logger.warning("result %s is made again: %s", key[:12], reason)
        store.remove(str(url))


def with_checksum(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a task's result with the sha256 of its other content in it."""
    content = {name: value for name, value in result.items() if name != CHECKSUM}
    text = json.dumps(content, sort_keys=True)
    return {**content, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def _distrust(content: bytes, key: str, serializer: Any) -> str | None:
    """Says why a result is not to be used, or None if it is sound."""
    try:
        record = json.loads(content)
        metadata, result = record["metadata"], json.loads(record["result"])
        written_by, stored_as = metadata["serializer"], metadata["storage_key"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "its record is not readable"
    if set(record) != {"metadata", "result"} or written_by != serializer.model_dump():
        return "its record was not written by this project"
    if stored_as != key:
        return "its record belongs to another key"
    if not isinstance(result, dict) or result != with_checksum(result):
        return "its result has been changed"
    for ref in references(result):
        if not store.intact(ref):
            return f"the {ref.kind} {ref.artifact[:12]} it points to is missing or damaged"
    try:
        serializer.loads(record["result"].encode())
    except ValueError:
        return "its result is none of this task"
    return None
