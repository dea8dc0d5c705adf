"""Where a checkpoint comes from: a local place, the Hugging Face hub, or MLflow."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from ddim_core.checkpoints.checkpoint import WEIGHTS_NAME
from ddim_core.checkpoints.convert import INDEX
from ddim_core.checkpoints.pipeline_files import NETWORK_FILES, PARTS
from ddim_core.safe_files.hub import fetched
from ddim_core.safe_files.weight_names import DECODER_FOLDERS, STATS
from tasks.checkpoints.addresses import HUB, MLFLOW, is_local
from tasks.checkpoints.pipelines import DATA, is_pipeline
from tasks.storage.naming import run_name

SHARDED = (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"))
HUB_FILES = [
    INDEX, "config.json", *NETWORK_FILES, *PARTS["scheduler"],
    *(f"{part}/{n}" for part, names in PARTS.items() for n in names if ".non_ema." not in n),
    *(f"{part}/{stem}-*-of-*.safetensors" for part, stem in SHARDED),
]  # fmt: skip

# Of a pipeline that is drawn by its own call, whatever its parts are called.
PIPELINE_FILES = [INDEX, *(f"*/*{suffix}" for suffix in DATA)]
DESCRIPTION = [INDEX, *(f"*/*{suffix}" for suffix in DATA if suffix != ".safetensors")]
DECODER_FILES = [
    STATS, "config.json", WEIGHTS_NAME,
    *(f"{folder}/{name}" for folder in DECODER_FOLDERS for name in PARTS[folder][:3]),
]  # fmt: skip
VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*", "*.ema.*"]


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


def fetch_configuration(location: str, folder: Path) -> Path:
    """Returns the folder of a pipeline's configurations and tokenizers: itself, or those of a hub
    id, brought into `folder` without weights.

    Raises:
        ValueError: If there is none.
        ConnectionError: If the hub does not answer.
    """
    return _folder_of(location, DESCRIPTION, folder, "a configuration")


def fetch_decoder(location: str, folder: Path) -> Path:
    """Returns the folder of an autoencoder, or of a pipeline with one: itself, or that of a hub id,
    brought into `folder` without the other parts.

    Raises:
        ValueError: If there is none.
        ConnectionError: If the hub does not answer.
    """
    return _folder_of(location, DECODER_FILES, folder, "an autoencoder")


def _folder_of(location: str, files: list[str], folder: Path, what: str) -> Path:
    if is_local(location):
        return Path(location)
    name, _, revision = location.removeprefix(HUB).partition("@")
    sought = f"there is no folder {name!r} here for {what}, and as a hub id it"
    return fetched(name, files, revision=revision or None, into=folder, sought=sought)


def _is_whole_pipeline(name: str, revision: str, folder: Path) -> bool:
    fetched(name, [INDEX], revision=revision or None, into=folder)
    return is_pipeline(folder, there=False)


def _from_hub(repository: str, folder: Path) -> Path:
    """Downloads the files of a checkpoint that we know by name: safetensors, and pickles only of
    networks that have no other. Which ones, HF_TOKEN and HF_HUB_OFFLINE decide as usual."""
    name, _, revision = repository.removeprefix(HUB).partition("@")
    if _is_whole_pipeline(name, revision, folder):
        plain = fetched(
            name, PIPELINE_FILES, without=VARIANTS, revision=revision or None, into=folder
        )
        if any(not any(c.parent.glob("*.safetensors")) for c in plain.glob("*/config.json")):
            fetched(name, PIPELINE_FILES, revision=revision or None, into=folder)
        return folder
    safe = [file for file in HUB_FILES if not file.endswith(".bin") and ".fp16." not in file]
    fetched(name, safe, revision=revision or None, into=folder)
    if any(not any(c.parent.glob("*.safetensors")) for c in folder.rglob("config.json")):
        fetched(name, HUB_FILES, revision=revision or None, into=folder)
    if not any(folder.rglob("config.json")):
        raise ValueError(f"the hub's {name!r} holds no diffusers checkpoint: it has no config.json")
    return folder
