"""Files of the Hugging Face hub, brought to this machine once: by pattern, so that no code comes.

Which hub, which token and whether at all, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE decide as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ddim_core.common.redaction import redacted

SECONDS = 10.0  # for a first answer


class HubError(ValueError):
    """The hub refuses, or has no such repository."""


class HubAwayError(HubError, ConnectionError):
    """The hub does not answer, or may not be asked; what was fetched before may not be whole."""


def fetched(
    name: str,
    files: Sequence[str],
    *,
    kind: str = "model",
    without: Sequence[str] = (),
    revision: str | None = None,
    into: Path | None = None,
    local_only: bool = False,
    sought: str = "",
) -> Path:
    """Returns the folder of a repository's files.

    Args:
        name: `OWNER/NAME`.
        files: Patterns of what is wanted.
        kind: `model` or `dataset`.
        without: Patterns of what is not, of that.
        revision: A branch, tag or commit; the newest of the main branch without it.
        into: A folder for them; the hub's cache without it.
        local_only: Take what was fetched before, and ask no one.
        sought: Begins the message of an error, as in "there is no folder 'a/b', and as a hub id
            it"; what follows is why it was not fetched.

    Raises:
        HubError: If the hub does not give it.
        HubAwayError: If the hub cannot be asked.
    """
    from httpx import HTTPError
    from huggingface_hub import snapshot_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.errors import RevisionResolutionError as NoRevisionError

    sought = sought or f"there is no folder {name!r} here, and as a hub id it"
    try:
        return Path(
            snapshot_download(
                name, repo_type=kind, revision=revision, local_dir=into, etag_timeout=SECONDS,
                allow_patterns=list(files), ignore_patterns=list(without) or None,
                local_files_only=local_only,
            )
        )  # fmt: skip
    except HfHubHTTPError as error:
        raise HubError(
            f"{sought} was refused by the hub ({_first_line(error)}); for a private or gated one "
            "set HF_TOKEN"
        ) from None
    except (IsADirectoryError, FileExistsError, NotADirectoryError) as error:
        raise HubError(
            f"{sought} cannot be put down: {error.filename2 or error.filename} is in the way "
            f"({error.strerror}); take it away and run this again"
        ) from None
    except (LocalEntryNotFoundError, HTTPError, OSError) as error:
        raise HubAwayError(
            f"{sought} cannot be fetched: the hub does not answer, or HF_HUB_OFFLINE is set "
            f"({_first_line(error)}); check the name and the network, or give a local folder"
        ) from None
    except (ValueError, NoRevisionError) as error:  # no name of a repository, nor of a revision
        raise HubError(
            f"{sought} cannot be asked for ({_first_line(error)}); give a local folder, or "
            "OWNER/NAME"
        ) from None


def _first_line(error: Exception) -> str:
    return redacted((str(error).strip().splitlines() or [type(error).__name__])[0])
