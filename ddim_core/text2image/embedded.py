"""Where the base and the judge that come with the project lie. No torch here, so that a LoRA is
held against the base at once."""

from __future__ import annotations

from pathlib import Path


def embedded_base() -> Path:
    """Returns the folder of the base that comes with the project.

    Raises:
        ValueError: If it is not there.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "base", package.parent / "data" / "base-32"):
        if (folder / "model_index.json").is_file():
            return folder
    raise ValueError(
        "the embedded base is missing: it lies in data/base-32 of the project; "
        "`ddim train-base` makes one, or give base= a diffusers folder"
    )


def embedded_judge() -> Path:
    """Returns the file of the judge that judged it, whether it is there or not."""
    return embedded_base() / "judge.safetensors"
