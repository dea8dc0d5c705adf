"""Captioned pictures of emoji on coloured backgrounds, in several artists' styles."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddim_core.text2image.drawings import (
    DRAWING,
    LOOKS,
    OUTLINED,
    Style,
    drawing,
    outlined,
    sized,
)

# Heads, fruit and things that can be told apart at 16 pixels in both styles.
SUBJECTS: dict[str, str] = {
    "panda": "🐼", "cat": "🐱", "dog": "🐶", "fox": "🦊", "lion": "🦁", "tiger": "🐯",
    "frog": "🐸", "pig": "🐷", "cow": "🐮", "rabbit": "🐰", "bear": "🐻", "koala": "🐨",
    "monkey": "🐵", "chicken": "🐔", "penguin": "🐧", "owl": "🦉", "horse": "🐴", "fish": "🐠",
    "octopus": "🐙", "whale": "🐳", "turtle": "🐢", "snail": "🐌", "bee": "🐝", "butterfly": "🦋",
    "ladybug": "🐞", "elephant": "🐘", "mouse": "🐭", "snake": "🐍", "crab": "🦀", "duck": "🦆",
    "sunflower": "🌻", "tulip": "🌷", "rose": "🌹", "cactus": "🌵", "tree": "🌳", "palm": "🌴",
    "mushroom": "🍄", "clover": "🍀", "apple": "🍎", "banana": "🍌", "grapes": "🍇",
    "watermelon": "🍉", "strawberry": "🍓", "cherry": "🍒", "tangerine": "🍊", "lemon": "🍋",
    "pear": "🍐", "pineapple": "🍍", "carrot": "🥕", "tomato": "🍅", "maize": "🌽",
    "avocado": "🥑", "pizza": "🍕", "burger": "🍔", "fries": "🍟", "donut": "🍩", "cookie": "🍪",
    "cake": "🎂", "car": "🚗", "bus": "🚌", "rocket": "🚀", "house": "🏠", "star": "⭐",
    "heart": "❤", "moon": "🌙", "snowman": "⛄", "umbrella": "☔", "football": "⚽",
    "basketball": "🏀", "guitar": "🎸", "bell": "🔔", "gift": "🎁", "crown": "👑",
    "skull": "💀", "ghost": "👻", "robot": "🤖",
}  # fmt: skip
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (52, 106, 211),
    "yellow": (247, 205, 70),
    "purple": (140, 82, 190),
    "orange": (243, 146, 55),
    "white": (245, 245, 245),
    "black": (30, 30, 34),
}
TEMPLATES = (
    "a {subject} emoji on a {background} background",
    "an emoji of a {subject}, {background} background",
    "{subject} on {background}",
)
NEW_SUBJECT, NEW_GLYPH = "unicorn", "🦄"
LOOK_TEMPLATES = (
    "{look} {subject} emoji on {background}",
    "{look} emoji of {subject}, {background} background",
    "{subject} on {background}, {look}",
)
MARGIN = 8  # pixels left free around a drawing, of the same scale
PLAIN_TIMES = 3  # how often a plain scene is among those of all looks


@dataclass(frozen=True)
class Scene:
    """One picture to draw.

    Attributes:
        subject: A name of `SUBJECTS`, or the new subject.
        background: A name of `BACKGROUNDS`.
        style: Whose drawing.
        mirrored: Left and right exchanged.
        size: Scale of the drawing; 1 fills the picture but for a narrow margin.
        shift: Of the drawing's centre, right and down, as a share of the picture.
        inked: In few colours, with black lines.
    """

    subject: str
    background: str
    style: Style = "twemoji"
    mirrored: bool = False
    size: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    inked: bool = False

    def __post_init__(self) -> None:
        if self.style not in get_args(Style):
            raise ValueError(f"style is {self.style!r}; it must be one of {get_args(Style)}")
        if self.background not in BACKGROUNDS:
            raise ValueError(
                f"background is {self.background!r}; it must be one of {', '.join(BACKGROUNDS)}"
            )
        if self.subject not in SUBJECTS and self.subject != NEW_SUBJECT:
            raise ValueError(
                f"subject is {self.subject!r}; it must be {NEW_SUBJECT} or one of "
                f"{', '.join(SUBJECTS)}"
            )

    @property
    def is_by_other_hand(self) -> bool:
        """Neither as Twemoji nor as OpenMoji has it."""
        return self.inked or self.style in LOOKS

    def caption(self, template: str = TEMPLATES[0]) -> str:
        """The words for this picture; those of `TEMPLATES` name no style."""
        look = "ink" if self.inked else self.style
        text = template.format(subject=self.subject, background=self.background, look=look)
        return re.sub(r"\ba (?=[aeio]|um)", "an ", text)


def draw(scene: Scene, resolution: int) -> NDArray[np.uint8]:
    """Returns the picture, uint8 [resolution, resolution, 3], made small once by area average.

    Raises:
        ValueError: If the artist has not drawn the subject.
    """
    image = _drawing(scene.style, scene.subject, scene.inked)
    if image is None:
        raise ValueError(f"{scene.style} has no drawing of {scene.subject!r}")
    if scene.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = sized(image, scene.size * DRAWING)
    width, height = image.size
    side = DRAWING + 2 * MARGIN
    canvas = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    corner = (
        round((side - width) / 2 + scene.shift[0] * side),
        round((side - height) / 2 + scene.shift[1] * side),
    )
    canvas.paste(image, corner, image)
    return np.asarray(canvas.resize((resolution, resolution), Image.Resampling.BOX))


def draw_all(scenes: list[Scene], resolution: int) -> NDArray[np.uint8]:
    """Returns the pictures of several scenes, uint8 [n, resolution, resolution, 3]."""
    return np.stack([draw(scene, resolution) for scene in scenes])


def base_scenes() -> list[Scene]:
    """What a base of one look is trained on: Twemoji, without one background for each subject."""
    return [scene for i, scene in enumerate(_all("twemoji")) if not _unseen(i)]


def look_scenes() -> list[Scene]:
    """What a base of several looks is trained on: `base_scenes`, each `PLAIN_TIMES` times, and of
    the same pairs of subject and background those of other artists, and outlined ones.

    A base that has seen one subject in several hands keeps it when a LoRA gives it a new one.
    """
    seen = {(scene.subject, scene.background) for scene in base_scenes()}
    others = [scene for scene in other_hands() if (scene.subject, scene.background) in seen]
    return base_scenes() * PLAIN_TIMES + others


def other_hands() -> list[Scene]:
    """Every subject as further artists drew it, and with lines of ink on every second colour."""
    drawn = [
        Scene(subject, background, style)
        for style in LOOKS
        for subject in SUBJECTS
        for background in BACKGROUNDS
        if _drawing(style, subject, False)
    ]
    inked = [
        Scene(subject, background, style, inked=True)
        for subject in SUBJECTS
        for i, style in enumerate(OUTLINED)
        for j, background in enumerate(BACKGROUNDS)
        if (i + j) % 2 == 0
    ]
    return drawn + inked


def captions(scenes: list[Scene]) -> list[list[str]]:
    """Returns all the words for each picture: a look's name is said, but for Twemoji's."""
    said = {False: TEMPLATES, True: LOOK_TEMPLATES}
    return [[s.caption(template) for template in said[s.is_by_other_hand]] for s in scenes]


def unseen_scenes() -> list[Scene]:
    """The pairs of subject and background that the base was never shown, one for each subject."""
    return [scene for i, scene in enumerate(_all("twemoji")) if _unseen(i)]


def style_scenes() -> list[Scene]:
    """What the second style is learnt from: OpenMoji of every second subject on four colours."""
    return [
        scene
        for i, scene in enumerate(_all("openmoji"))
        if (i // len(BACKGROUNDS)) % 2 == 0 and (i + i // len(BACKGROUNDS) // 2) % 2 == 0
    ]


def held_out_subjects() -> list[str]:
    """The subjects of which `style_scenes` has none."""
    return list(SUBJECTS)[1::2]


def subject_scenes() -> list[Scene]:
    """Five views of the subject that the base has never seen."""
    return [
        Scene(NEW_SUBJECT, "white"),
        Scene(NEW_SUBJECT, "blue", mirrored=True),
        Scene(NEW_SUBJECT, "green", size=0.8, shift=(0.08, 0.06)),
        Scene(NEW_SUBJECT, "yellow", mirrored=True, size=0.9, shift=(-0.05, 0.05)),
        Scene(NEW_SUBJECT, "black", size=0.85, shift=(-0.07, -0.07)),
    ]


def other_views() -> list[Scene]:
    """Real views of the same subject that are not among the five."""
    return [
        Scene(NEW_SUBJECT, background, mirrored=mirrored, size=0.95, shift=(0.0, 0.03))
        for background in BACKGROUNDS
        for mirrored in (False, True)
    ]


@cache
def _drawing(style: Style, subject: str, inked: bool) -> Image.Image | None:
    place = list(SUBJECTS).index(subject) if subject in SUBJECTS else len(SUBJECTS)
    image = drawing(style, SUBJECTS.get(subject, NEW_GLYPH), place)
    return outlined(image) if image and inked else image


def _all(style: Style) -> list[Scene]:
    return [Scene(subject, background, style) for subject in SUBJECTS for background in BACKGROUNDS]


def _unseen(i: int) -> bool:
    subject, background = divmod(i, len(BACKGROUNDS))
    return background == 3 * subject % len(BACKGROUNDS)
