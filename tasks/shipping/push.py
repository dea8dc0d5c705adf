"""A copy of a pipeline with another scheduler in it, opened before it is handed over."""

from __future__ import annotations

import inspect
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there, require_makeable
from ddim_core.safe_files.settings import read_settings
from ddim_core.samplers.families import said_by
from tasks.shipping.ready import Ready

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

INDEX = "model_index.json"


class NotPushedError(RuntimeError):
    """A pipeline cannot be handed over with a scheduler in it."""


def require_free(folder: Path) -> None:
    """Makes sure that a folder may be written.

    Raises:
        ValueError: If it holds something, is a file, or cannot be made.
    """
    if not os.path.lexists(folder):
        require_makeable(folder, "the new folder")
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise ValueError(f"the folder {str(folder)!r} holds something; give a new or an empty one")


def require_pushable(pipeline: Path, ready: Ready) -> None:
    """Makes sure that there is a pipeline, and a scheduler to write into it.

    Raises:
        ValueError: If there is not.
    """
    if ready.scheduler is None:
        raise ValueError(
            "there is no scheduler of diffusers that does what this cell does, so that none can be "
            "pushed; ship it without --push, whose sample.py has the loop"
        )
    if not is_there(pipeline / INDEX):
        raise ValueError(
            "the checkpoint is a bare network without model_index.json, so that there is no "
            "pipeline to push a scheduler into; ship it without --push"
        )


def push(pipeline: Path, scheduler: Any, folder: Path) -> None:
    """Writes a copy of a pipeline with another scheduler.

    Args:
        pipeline: Its folder, which is left as it is.
        scheduler: Of diffusers.
        folder: New, or empty.

    Raises:
        NotPushedError: If diffusers does not open the copy, or its class opens it with another
            scheduler than was written; nothing is left then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        shutil.copytree(pipeline, draft)
        index = read_settings(draft / INDEX)
        index["scheduler"] = ["diffusers", type(scheduler).__name__]
        (draft / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
        shutil.rmtree(draft / "scheduler", ignore_errors=True)
        scheduler.save_pretrained(draft / "scheduler")
        _require_opened(draft, index, scheduler)
        if folder.exists():
            folder.rmdir()
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require_opened(draft: Path, index: Config, scheduler: Any) -> None:
    kind = getattr(diffusers, str(index.get("_class_name")), None)
    if kind is None:
        raise NotPushedError(f"diffusers has no pipeline {str(index.get('_class_name'))[:80]!r}")
    parts = [name for name in index if isinstance(index[name], list) and index[name][0] is None]
    known = inspect.signature(kind.__init__).parameters
    absent = {name: None for name in parts if name in known}
    try:
        opened = kind.from_pretrained(
            draft, local_files_only=True, use_safetensors=True, trust_remote_code=False, **absent
        )
    except Exception as error:  # other people's files can be wrong in every way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise NotPushedError(f"diffusers does not open the copy: {reason}") from error
    wrong = _differing(opened.scheduler, scheduler)
    if wrong:
        raise NotPushedError(
            f"{kind.__name__} opens the copy with {', '.join(wrong)} of its scheduler, whatever "
            "its file says; set pipe.scheduler after it is opened, as the README has it"
        )


def _differing(found: Any, wanted: Any) -> list[str]:
    if type(found) is not type(wanted):
        return [f"{type(found).__name__} in place"]
    other = type(wanted).from_config(wanted.config)
    return [
        f"{name} = {value!r}"
        for name, value in sorted(said_by({**found.config, "_use_default_values": []}).items())
        if value != other.config.get(name)
    ]
