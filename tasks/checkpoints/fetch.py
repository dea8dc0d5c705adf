"""Where a checkpoint comes from: a local place, the Hugging Face hub, or MLflow."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from ddim_core.checkpoints.convert import INDEX, NETWORK_FILES, PARTS
from ddim_core.common.redaction import redacted
from ddim_core.safe_files.safe_load import first_line
from tasks.checkpoints.addresses import HUB, MLFLOW
from tasks.storage.naming import run_name

SHARDED = (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"))
HUB_FILES = [
    INDEX, "config.json", *NETWORK_FILES, *PARTS["scheduler"],
    *(f"{part}/{n}" for part, names in PARTS.items() for n in names if ".non_ema." not in n),
    *(f"{part}/{stem}-*-of-*.safetensors" for part, stem in SHARDED),
]  # fmt: skip
SECONDS = 10.0  # for the hub to answer


class NotHereError(ConnectionError, ValueError):
    """Neither a place here nor, as far as can be told now, on the hub; the name may be wrong."""


def _is_unreachable(_task: object, _run: object, state: object) -> bool:
    return "ConnectionError" in str(getattr(state, "message", ""))


@task(
    name="fetch-checkpoint",
    task_run_name=run_name("fetch-checkpoint"),
    retries=1,
    retry_delay_seconds=2,
    retry_condition_fn=_is_unreachable,
)
def fetch_checkpoint(location: str, folder: str) -> str:
    """Brings a checkpoint of a hub or of MLflow to a folder here; returns where it lies.

    Raises:
        ValueError: If it is not there, or may not be had.
        ConnectionError: If the other side does not answer; MLflow is asked twice.
    """
    if MLFLOW.match(location):
        from tasks.tracking.artifacts import download  # mlflow is slow to import

        return str(download(location, Path(folder)))
    return str(_from_hub(location, Path(folder)))


def _from_hub(repository: str, folder: Path) -> Path:
    """Downloads the files of a checkpoint that we know by name: safetensors, and pickles only of
    networks that have no other. Which ones, HF_TOKEN and HF_HUB_OFFLINE decide as usual."""
    name, _, revision = repository.removeprefix(HUB).partition("@")
    safe = [file for file in HUB_FILES if not file.endswith(".bin") and ".fp16." not in file]
    _snapshot(name, revision, folder, safe)
    if any(not any(c.parent.glob("*.safetensors")) for c in folder.rglob("config.json")):
        _snapshot(name, revision, folder, HUB_FILES)
    if not any(folder.rglob("config.json")):
        raise ValueError(f"the hub's {name!r} holds no diffusers checkpoint: it has no config.json")
    return folder


def _snapshot(name: str, revision: str, folder: Path, files: list[str]) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    missing = f"there is no folder {name!r} here, and as a hub id it"
    try:
        snapshot_download(
            name, revision=revision or None, local_dir=folder, allow_patterns=files,
            etag_timeout=SECONDS,
        )  # fmt: skip
    except HfHubHTTPError as error:
        said = first_line(error)
        raise ValueError(
            f"{missing} was refused by the hub ({redacted(said)}); for a private one set HF_TOKEN"
        ) from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise NotHereError(
            f"{missing} cannot be fetched: the hub does not answer, or HF_HUB_OFFLINE is set "
            f"({redacted(first_line(error))})"
        ) from None
