"""When a task's result may be used again: same inputs, same code, nothing missing, nothing planted.

Prefect keeps each result as a small JSON record below DDIM_DATA/prefect, named by its key. The
key covers the task's inputs and all code of ours that it runs. Before Prefect reads a record we
look at it ourselves: Prefect lets the record choose how it is deserialised (a record of type
pickle would run code), and a record is worth nothing when what it points to is damaged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer

from ddim_core.digest import code_digest, digest
from tasks import store
from tasks.places import local_dir

CHECKSUM = "checksum"
WRITING_SECONDS = 0.1
P = ParamSpec("P")

RESULTS = local_dir("prefect")
PLAIN_JSON: JSONSerializer = JSONSerializer(object_encoder=None, object_decoder=None)
# Inputs that say how and where the work is done, not what comes out: device, batch size, a path
# whose content is another input.
NOT_IN_KEY = frozenset({"execution", "location"})

logger = logging.getLogger(__name__)


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
        function = task_ctx.task.fn
        key = digest(function.__qualname__, code_digest(function.__module__), asked)
        RESULTS.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_untrusted(RESULTS / key)
        return key


def cached_task(function: Callable[P, dict[str, Any]]) -> Task[P, dict[str, Any]]:
    """Makes a function a Prefect task whose plain-dict result is kept and used again.

    A checksum goes into the result, so that a record with a flipped bit is not trusted.
    """

    code_digest(function.__module__)  # taken now, and kept: the code that runs is what was imported

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        return with_checksum(function(*args, **kwargs))

    return task(
        name=function.__name__.replace("_", "-"),
        cache_policy=InputsAndCode(),
        persist_result=True,
        result_storage=RESULTS,
        result_serializer=PLAIN_JSON,
        cache_result_in_memory=False,
    )(checked)


def refuse_untrusted(path: Path) -> None:
    """Deletes a result record that is not exactly ours, or whose artefacts are not all intact.

    The task then runs again and writes a good one.
    """
    reason = _reason_against(path)
    if reason:
        time.sleep(WRITING_SECONDS)  # another process may be in the middle of writing it
        reason = _reason_against(path)
    if reason:
        logger.warning("result %s is made again: %s", path.name[:12], reason)
        path.unlink(missing_ok=True)


def _reason_against(path: Path) -> str | None:
    try:
        return _distrust(path.read_bytes(), path.name)
    except FileNotFoundError:
        return None


def with_checksum(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a task's result with the sha256 of its other content in it."""
    content = {name: value for name, value in result.items() if name != CHECKSUM}
    text = json.dumps(content, sort_keys=True)
    return {**content, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def _distrust(content: bytes, key: str) -> str | None:
    """Says why a record is not to be used, or None if it is sound."""
    try:
        record = json.loads(content)
        metadata, result = record["metadata"], json.loads(record["result"])
        serializer, stored_as = metadata["serializer"], Path(metadata["storage_key"]).name
    except (ValueError, TypeError, KeyError, RecursionError):
        return "its record is not readable"
    if set(record) != {"metadata", "result"} or serializer != PLAIN_JSON.model_dump():
        return "its record was not written by this project"
    if stored_as != key:
        return "its record belongs to another key"
    if not isinstance(result, dict) or result != with_checksum(result):
        return "its result has been changed"
    for ref in store.references(result):
        if not store.intact(ref):
            return f"the {ref['kind']} {ref['artifact'][:12]} it points to is missing or damaged"
    return None
