"""Where the base and the judge that come with the project lie. No torch here, so that a LoRA is
held against the base at once."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# SHA-256 of the judge: code, so that scores of another judge are made anew.
JUDGE = "3b663ad35cf2e21acb028a57303f45737489f76348e8a16a3e5970afff5fb113"
PLACES = (PACKAGE / "base", PACKAGE.parent / "data" / "base-32")  # in a wheel, in a clone


def embedded_base() -> Path:
    """Returns the folder of the base that comes with the project.

    Raises:
        ValueError: If it is not there.
    """
    folder = next((place for place in PLACES if (place / "model_index.json").is_file()), None)
    if folder is None:
        raise ValueError(
            "the embedded base is missing: it lies in data/base-32 of the project; "
            "`ddim train-base` makes one, or give base= a diffusers folder"
        )
    return folder


def embedded_judge() -> Path | None:
    """Returns the file of the judge that judged it, None if there is none."""
    places = (place / "judge.safetensors" for place in PLACES)
    return next((place for place in places if place.is_file()), None)
