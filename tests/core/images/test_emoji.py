"""The embedded drawings: all there, each with a name and a category, laid over a colour."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ddim_core.images.emoji import EMOJI_SIZE, Emoji, emoji_files
from ddim_core.images.sources.colour import composite, rgb_of
from tests.picture_files import drawn


@pytest.fixture(scope="module")
def drawings() -> list[Emoji]:
    return [about for about, _ in emoji_files()]


def test_every_drawing_has_a_name_and_one_of_ten_categories(drawings: list[Emoji]) -> None:
    assert drawn(next(file for _, file in emoji_files())).shape == (EMOJI_SIZE, EMOJI_SIZE, 4)
    assert len(drawings) == len({emoji.code_points for emoji in drawings}) == 4009
    assert all(emoji.short_name and emoji.words for emoji in drawings)
    assert len(Counter(emoji.category for emoji in drawings)) == 10


@pytest.mark.parametrize(
    ("code_points", "words", "category"),
    [
        ("1f43c", "panda face", "Animals & Nature"),
        ("1f44b-1f3fd", "wave, medium skin tone", "People & Body"),
        ("1f1ef-1f1f5", "japan flag", "Flags"),
        ("1f44d", "thumbs up sign", "People & Body"),
        ("1facd", "orca", "Animals & Nature"),  # of Unicode 17, newer than the list of names
        ("1f3fb", "skin tone 2", "Component"),  # a swatch, not a variant
        ("e50a", "shibuya 109", "Travel & Places"),  # only Twemoji has it
    ],
)
def test_a_drawing_is_called_what_people_call_it(
    drawings: list[Emoji], code_points: str, words: str, category: str
) -> None:
    emoji = next(e for e in drawings if e.code_points == code_points)
    assert (emoji.words, emoji.category) == (words, category)


def test_every_variant_of_skin_tone_collapses_to_a_neutral_drawing(drawings: list[Emoji]) -> None:
    neutral = [about for about, _ in emoji_files(skin_tones=False)]
    assert len(neutral) == len({emoji.base for emoji in drawings}) == 1954
    assert not any(emoji.skin_tones for emoji in neutral)
    assert {emoji.base for emoji in neutral} == {emoji.base for emoji in drawings}


def test_a_colour_shows_where_a_drawing_is_transparent_and_mixes_where_it_is_half() -> None:
    pixels = np.array([[10, 20, 30, 0], [10, 20, 30, 255], [200, 0, 100, 51]], dtype=np.uint8)
    assert composite(pixels, "blue").tolist() == [[0, 0, 255], [10, 20, 30], [40, 0, 224]]


def test_a_colour_that_does_not_exist_is_refused() -> None:
    assert rgb_of("#ff8000") == (255, 128, 0)
    for colour in ("bluish", "#ff800080"):
        with pytest.raises(ValueError, match="background is"):
            rgb_of(colour)
