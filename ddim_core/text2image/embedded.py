"""Where the base and the judge that come with the project lie. No torch here, so that a LoRA is
held against the base at once."""

from __future__ import annotations

from pathlib import Path

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.settings import read_settings

PACKAGE = Path(__file__).parents[1]
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


def judge_digest() -> str:
    """Returns the SHA-256 of that judge, which the base's card.json has too: part of the key of
    what it judges, so that another judge's answers are made anew. Empty if there is none.

    Raises:
        ValueError: If it is another one than that of the card.
    """
    judge = embedded_judge()
    if judge is None:
        return ""
    card = judge.with_name("card.json")
    told = read_settings(card).get("judge") if is_there(card) else None
    found = file_digest(judge)
    if not isinstance(told, dict) or told.get("sha256") != found:
        raise ValueError(
            f"{judge} is damaged, or not the judge whose sha256 card.json beside it has; fetch the "
            "base again, or delete the file, and a judge is trained"
        )
    return found
