"""The scores of images by name, and what a user asks for. Networks are imported when opened."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddim_core.common.checks import require_choice
from ddim_core.common.plain_files import is_there
from ddim_core.image_scores.aesthetic import AESTHETIC
from ddim_core.image_scores.clip_score import CLIP_SCORE
from ddim_core.image_scores.hpsv2 import HPSV2
from ddim_core.image_scores.image_reward import IMAGE_REWARD
from ddim_core.image_scores.parts import files_of, require_parts
from ddim_core.image_scores.pick_score import PICK_SCORE
from ddim_core.image_scores.scorer import ScoreKind

SCORES: dict[str, ScoreKind] = {
    kind.name: kind for kind in (CLIP_SCORE, PICK_SCORE, HPSV2, IMAGE_REWARD, AESTHETIC)
}


HUB_ID = re.compile(r"[\w.-]*\w/[\w.-]+")


def is_hub_id(place: str) -> bool:
    """Tells whether a place could be OWNER/NAME on the hub; a path that is not there is none."""
    return HUB_ID.fullmatch(place) is not None and not place.startswith(".")


@dataclass(frozen=True)
class ImageScoreChoice:
    """A score of images as a user names it: `NAME` or `NAME=PLACE`.

    Attributes:
        name: One of `SCORES`.
        place: A folder, a hub id, or a version that the score knows; empty is its usual one.

    Raises:
        ValueError: If there is no such score, or the place is a file or a folder without what the
            score needs.
    """

    name: str
    place: str = ""

    def __post_init__(self) -> None:
        require_choice("image_scores", self.name, tuple(SCORES))
        path = Path(self.place)
        if self.place and is_there(path):
            raise ValueError(
                f"image_scores: {self.place!r} is a file; {self.name} takes the folder it lies in"
            )
        if self.place and path.is_dir():
            require_parts(self.name, path, self.kind.parts)
        elif self.place not in ("", *self.kind.places) and not is_hub_id(self.place):
            known = " or ".join(self.kind.places)
            raise ValueError(
                f"image_scores: there is no folder {self.place!r}; {self.name} takes a folder, a "
                f"hub id OWNER/NAME, or {known}"
            )

    @property
    def kind(self) -> ScoreKind:
        return SCORES[self.name]

    def files(self) -> dict[str, Path]:
        """Finds the score's files by name; what lies on a hub is fetched once.

        Raises:
            ValueError: If they cannot be had.
        """
        return files_of(self.name, self.place, self.kind.parts, self.kind.places)


def choices_of(texts: Sequence[str]) -> tuple[ImageScoreChoice, ...]:
    """Reads a list of scores, in the order of their names' first mention.

    Raises:
        ValueError: As `ImageScoreChoice`, or if a score stands there twice.
    """
    found: dict[str, ImageScoreChoice] = {}
    for text in texts:
        name, _, place = text.partition("=")
        choice = ImageScoreChoice(name.strip(), place.strip())
        if choice.name in found:
            raise ValueError(
                f"image_scores has {choice.name!r} twice; a score has one column, so run the grid "
                "again with the other weights"
            )
        found[choice.name] = choice
    return tuple(found.values())


def require_no_prompts_needed(choices: Sequence[ImageScoreChoice], of: str) -> None:
    """Refuses scores that judge a picture by its prompt, where there are none.

    Args:
        choices: The scores.
        of: What has no prompts as text: `the toy model`.

    Raises:
        ValueError: For the first such score.
    """
    needing = next((choice.name for choice in choices if choice.kind.needs_prompts), None)
    if needing:
        without = ", ".join(name for name, kind in SCORES.items() if not kind.needs_prompts)
        raise ValueError(
            f"image_scores has {needing!r}, which judges a picture by its prompt, and {of} has no "
            f"prompts as text; leave it out, or take {without}"
        )
