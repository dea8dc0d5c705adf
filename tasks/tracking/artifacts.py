"""Checkpoints out of MLflow: artefacts of runs, and registered models by version or alias."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ddim_core.common.late import late
from ddim_core.common.redaction import redacted

if TYPE_CHECKING:
    import mlflow
else:
    mlflow = late("mlflow")

NOT_REACHED = ("Connection", "timed out", "Max retries", "API request to")


def download(address: str, folder: Path) -> Path:
    """Downloads what an MLflow address names, below a folder; returns where it lies.

    Args:
        address: `runs:/<run id>/<path>`, `models:/<name>@<alias>`, `models:/<name>/<version>` or
            `mlflow-artifacts:/<path>`, at the server of MLFLOW_TRACKING_URI.
        folder: Where it goes; nothing is written beside it.

    Raises:
        ValueError: If there is no such thing, or it would leave the folder.
        ConnectionError: If the server does not answer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    occupied = (IsADirectoryError, FileExistsError, NotADirectoryError)
    try:
        place = Path(
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder))
        )
    except (mlflow.exceptions.MlflowException, OSError) as error:
        # Never chained: the original names the server, with its password where one is in it.
        message = redacted(f"{address!r} cannot be fetched from MLflow: {error}")
        away = isinstance(error, OSError) and not isinstance(error, occupied)
        lost = away or any(word in str(error) for word in NOT_REACHED)
        if lost and not isinstance(error, mlflow.exceptions.RestException):
            raise ConnectionError(message) from None
        raise ValueError(message) from None
    _require_inside(place, folder)
    return place


def _require_inside(place: Path, folder: Path) -> None:
    root = folder.resolve()
    for path in [place, *place.rglob("*")]:
        if path.is_symlink() or root not in [path.resolve(), *path.resolve().parents]:
            raise ValueError(f"the MLflow artefact {path.name!r} leads out of its folder")
