"""Bytes of one image file in, pixels out; nothing in the bytes can crash, hang or fill memory."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ddim_core.images.sources.colour import composite

# Pillow knows some fifty formats; these are those that people keep images in.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
KNOWN = "PNG, JPEG, WebP, BMP, GIF, TIFF and PPM"
ANIMATED = frozenset({"PNG", "GIF", "WEBP", "TIFF"})
GREY_MODES = frozenset({"1", "L"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})
DEEP_RAW = ";16"  # how Pillow names pixels of more than 8 bits that it would cut to 8
BITS_PER_SAMPLE = 258  # a TIFF's tag
MAX_PIXELS = 89_478_485  # Pillow warns above this, and refuses twice as many
LEAST_PIXELS, MOST_PER_BYTE = 2**24, 100
STRIP = 2**20  # pixels laid over a colour at once
SCAN, MOST_SCANS = b"\xff\xda", 100  # of a JPEG: each goes over the whole picture
PPM_HEAD = 2**16  # bytes that the header of a PPM must end in
MAX_ASPECT = 64  # a strip of 1x100,000 pixels would have a short side to resize to


class BrokenImageError(ValueError):
    """An image that cannot be used; the message is the reason, without the image's name."""


def decode(data: bytes, background: str = "white") -> Image.Image:
    """Reads one image, turned upright, opaque, with 8 bits a channel: grey (L) or RGB.

    Transparency is laid over `background`. Checksums are verified where the format has them
    (PNG): a flipped bit would otherwise show as another picture.

    Raises:
        BrokenImageError: If the bytes are no image of a known format, are damaged, have more than
            8 bits a channel, several frames, or an absurd size.
        ValueError: If there is no such background colour.
    """
    try:
        if data.startswith(b"P"):  # whose header Pillow reads byte by byte, however long it is
            Image.open(io.BytesIO(data[:PPM_HEAD]), formats=("PPM",)).close()
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            _require_sane(header)
            _require_whole(header, data)
            if header.format == "PNG":
                header.verify()
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            opened.load()
            ImageOps.exif_transpose(opened, in_place=True)  # a copy may be 300 MB
            transparent = opened.has_transparency_data
            opaque = "L" if opened.mode in GREY_MODES else "RGB"
            wanted = "RGBA" if transparent else opaque
            image = opened if opened.mode == wanted else opened.convert(wanted)
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImageError(f"cannot be read as an image: it is none of {KNOWN}") from error
    except Exception as error:  # Pillow's readers raise whatever their format trips over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BrokenImageError(f"cannot be read as an image: {reason}") from error
    if transparent:
        return Image.fromarray(_composited(image, background))
    return image


def _composited(image: Image.Image, background: str) -> NDArray[np.uint8]:
    """Lays an image over a colour strip by strip: the sums take sixteen bytes a pixel."""
    width, height = image.size
    opaque = np.empty((height, width, 3), dtype=np.uint8)
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        opaque[top : top + rows] = composite(np.asarray(strip), background)
    return opaque


def resized(image: Image.Image, resolution: int) -> Image.Image:
    """Resizes the short side to `resolution` (Pillow's bicubic, with antialiasing) and crops the
    centre."""
    if image.size == (resolution, resolution):
        return image
    scale = resolution / min(image.size)
    width, height = (max(resolution, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return image.crop((left, top, left + resolution, top + resolution))


def netpbm(pixels: NDArray[np.uint8]) -> bytes:
    """Writes pixels [height, width, 1 or 3] as they are, behind the header of PGM or PPM."""
    height, width, channels = pixels.shape
    return b"P%d\n%d %d\n255\n" % (5 if channels == 1 else 6, width, height) + pixels.tobytes()


def _require_sane(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BrokenImageError(
            f"is {width}x{height}, {width * height} pixels; at most {MAX_PIXELS} are read"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise BrokenImageError(
            f"is {width}x{height}; the long side may be at most {MAX_ASPECT} times the short one"
        )
    if image.mode in DEEP_MODES:
        raise BrokenImageError(f"has mode {image.mode}; images must have 8 bits a channel")
    if _is_cut(image):
        raise BrokenImageError("has 16 bits a channel; images must have 8 bits a channel")
    if image.format in ANIMATED and _has_more(image):
        raise BrokenImageError("has several frames; it must be one still image")


def _has_more(image: Image.Image) -> bool:
    if image.format not in ("GIF", "TIFF"):
        return bool(getattr(image, "n_frames", 1) > 1)
    try:
        image.seek(1)  # to count them all may take minutes
    except EOFError:
        return False
    return True


def _require_whole(image: Image.Image, data: bytes) -> None:
    """Refuses what a few bytes stand for: a picture of one colour has some 100 pixels a byte."""
    pixels = image.size[0] * image.size[1]
    if pixels > max(LEAST_PIXELS, MOST_PER_BYTE * len(data)):
        raise BrokenImageError(
            f"unpacks to {pixels} pixels from {len(data)} bytes; at most {LEAST_PIXELS}, or "
            f"{MOST_PER_BYTE} a byte, are read"
        )
    if image.format == "JPEG" and (n_scans := data.count(SCAN)) > MOST_SCANS:
        raise BrokenImageError(f"has {n_scans} scans; at most {MOST_SCANS} are read")


def _is_cut(image: Image.Image) -> bool:
    """Tells an image of more than 8 bits a channel that Pillow would cut to 8 without a word."""
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":
        # The second argument is the largest value, where it is not 255.
        arguments = [tile[3] for tile in tiles if isinstance(tile[3], tuple)]
        return any(isinstance(a[-1], int) and a[-1] > 255 for a in arguments)
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    return any(DEEP_RAW in str(tile[3]) for tile in tiles) or max(bits) > 8
