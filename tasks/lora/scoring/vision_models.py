"""CLIP and DINO by folder or hub id: found, and known by their content."""

from __future__ import annotations

from pathlib import Path

from ddim_core.common.digest import digest, file_digest
from ddim_core.common.plain_files import is_regular, is_there
from ddim_core.safe_files.hub import fetched

FILES = ["*.json", "*.safetensors", "*.txt"]  # no pickles, no code


def model_folder(name: str, given: str) -> Path:
    """Returns the folder of a model; one of the hub is fetched once.

    Raises:
        ValueError: If there is no such folder, and the hub does not give it.
    """
    path = Path(given)
    if path.is_dir():
        if not is_there(path / "config.json"):
            raise ValueError(f"{name} is {given!r}, which holds no config.json of a model")
        return path
    return fetched(given, FILES, sought=f"{name} is {given!r}, which is no folder here and")


def model_digest(folder: str) -> str:
    """Returns the sha256 over the names and contents of a model's files."""
    files = [path for path in sorted(Path(folder).iterdir()) if is_regular(path)]
    return digest([[path.name, file_digest(path)] for path in files])
