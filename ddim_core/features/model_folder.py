"""Weights of other people's networks: read without running code, named by content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import is_regular, is_there, read_json
from ddim_core.safe_files.hub import fetched

if TYPE_CHECKING:
    from torch import Tensor

# torch-fidelity's own; written here because importing it takes seconds.
INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
CONFIG = "config.json"
# The first that is there counts; the second is read as plain tensors only.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_state(path: Path, what: str) -> dict[str, Tensor]:
    """Reads a state dict that torch.save wrote, as plain tensors: a pickle that would do more is
    refused.

    Args:
        path: The file; a state dict below the key `state_dict` will do too.
        what: The network, for messages.

    Raises:
        ValueError: If there is no such file, or it holds something else.
    """
    from torch import Tensor

    from ddim_core.safe_files.safe_load import read_weights

    if not path.exists():
        raise ValueError(f"there is no weights file {str(path)!r} of {what}")
    try:
        content = read_weights(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name} holds no plain weights of {what}: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path.name} holds no state dict of {what}; it must map names to tensors")
    return content


def downloaded(url: str, what: str) -> Path:
    """Returns the file of a torch.hub address, downloaded once into torch.hub's folder.

    Raises:
        ValueError: If it is not there and cannot be downloaded.
    """
    path = hub_file(url)
    if not is_there(path):
        import torch

        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = path.stem.rsplit("-", 1)[-1]  # of the sha256, as in every torch.hub file
        try:
            torch.hub.download_url_to_file(url, str(path), prefix, False)
        except OSError as error:
            raise ValueError(
                f"the weights of {what} could not be downloaded ({error}); give a local copy of "
                f"{path.name}"
            ) from error
    return path


def hub_file(url: str) -> Path:
    """Where torch.hub keeps the file of an address; said here as well, to spare importing it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
    return home / "hub" / "checkpoints" / Path(urlparse(url).path).name


def local_inception_weights() -> Path | None:
    """Returns torch.hub's copy of the Inception of FID, if it has one."""
    path = hub_file(INCEPTION_URL)
    return path if is_there(path) else None


def model_folder(place: str, what: str, local_only: bool = False, beside: str = "") -> Path:
    """Returns a transformers model folder: a local one, or a hub id's, downloaded once.

    Args:
        place: A folder, or an id on the Hugging Face hub such as `facebook/dinov2-base`.
        what: The network, for messages.
        local_only: Take what is on this machine, and ask no one.
        beside: A file that is fetched too where a hub has it.

    Raises:
        ValueError: If it cannot be had, or lacks its configuration or weights.
    """
    folder = Path(place)
    if not folder.is_dir():
        missing = f"the weights {place!r} of {what} are no local folder, and as a hub id it"
        for weights in WEIGHTS:
            wanted = [CONFIG, weights, *filter(None, [beside])]
            folder = fetched(place, wanted, local_only=local_only, sought=missing)
            if is_there(folder / weights):
                break
    if not (folder / CONFIG).exists() or not any(is_regular(folder / name) for name in WEIGHTS):
        raise ValueError(
            f"{place!r} lacks {CONFIG} or weights; {what} is read from {CONFIG} and "
            f"{' or '.join(WEIGHTS)}"
        )
    from ddim_core.networks.checks import require_sane  # imports torch

    require_sane(read_json(folder / CONFIG), f"{place}/{CONFIG}")
    return folder


def model_files(folder: Path) -> tuple[str, str]:
    """Names what a model folder's network is made of: its configuration and its weights."""
    return CONFIG, next(name for name in WEIGHTS if is_there(folder / name))


def folder_digest(folder: Path, beside: str = "") -> str:
    """The sha256 of {name: digest} of what a model folder's network is made of.

    Args:
        folder: It.
        beside: One more file that counts.
    """
    names = [*model_files(folder), *filter(None, [beside])]
    manifest = {name: file_digest(folder / name) for name in names}
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
