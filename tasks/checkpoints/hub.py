"""Checkpoints on the Hugging Face hub: a repository's revisions, fetched without running its code.

An address is `hub:OWNER/NAME@COMMIT`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.hub import fetched
from tasks.storage import places

DATA_ONLY = ["*.json", "*.safetensors", "*.txt", "*.model"]
Answer = TypeVar("Answer")


def hub_heads(repository: str) -> list[str]:
    """Returns the addresses of the heads of a repository's branches and tags, each commit once.

    Args:
        repository: `OWNER/NAME`, or `OWNER/NAME@REVISION` for one branch, tag or commit.

    Raises:
        ValueError: If the hub cannot be reached, or has no such repository or revision.
    """
    name, _, revision = repository.partition("@")
    api = HfApi()
    if revision:
        found = _asked(repository, lambda: api.model_info(name, revision=revision))
        return [f"hub:{name}@{found.sha}"]
    refs = _asked(repository, lambda: api.list_repo_refs(name))
    commits = dict.fromkeys(ref.target_commit for ref in [*refs.branches, *refs.tags])
    return [f"hub:{name}@{commit}" for commit in commits]


def hub_download(address: str) -> Path:
    """Brings one revision to this machine, once; weights and settings only, never code or pickles.

    Raises:
        ValueError: If the hub cannot be reached, or does not have it.
    """
    name, _, commit = address.removeprefix("hub:").partition("@")
    folder = places.local_dir("fetched", f"{name.replace('/', '--')}-{commit[:12]}")
    whole = folder.with_name(f".{folder.name}.whole")  # written last
    if not is_there(whole):
        folder.mkdir(parents=True, exist_ok=True)
        fetched(name, DATA_ONLY, revision=commit, into=folder, sought=f"{name!r}")
        whole.touch()
    return folder


def _asked(repository: str, question: Callable[[], Answer]) -> Answer:
    try:
        return question()
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError,
            OSError, ValueError) as error:  # fmt: skip
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the hub does not give {repository!r} ({reason}); check its name and the network, or "
            "download it and watch its folder"
        ) from error
