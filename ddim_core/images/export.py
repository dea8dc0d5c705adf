"""Prepared images as files for other programs: Parquet with a card, or flat folders of PNGs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from ddim_core.images.image_set import ImageSet
from ddim_core.images.image_table import write_parquet
from ddim_core.images.sources.captions import METADATA

CARD = "README.md"
IDENTIFIERS = {"CC-BY 4.0": "cc-by-4.0"}  # as the Hugging Face hub writes licences


def export_parquet(splits: Iterable[ImageSet], folder: Path) -> list[Path]:
    """Writes `data/<split>-00000-of-00001.parquet` and a data card; `datasets.load_dataset` opens
    the folder, and its files as `"parquet"`.

    Raises:
        ValueError: If the folder is there and not empty.
    """
    _make_empty(folder / "data", folder)
    written: list[Path] = []
    seen: list[ImageSet] = []
    for images in splits:
        path = folder / "data" / f"{images.split}-00000-of-00001.parquet"
        write_parquet(images, str(path))
        written.append(path)
        seen.append(images)
    (folder / CARD).write_text(card(seen), encoding="utf-8")
    return [*written, folder / CARD]


def export_png(splits: Iterable[ImageSet], folder: Path) -> list[Path]:
    """Writes `<split>/000000.png`, ..., `metadata.jsonl` beside them where there are captions or
    classes, and a data card; pytorch-fid takes the folder of a split.

    Raises:
        ValueError: If the folder is there and not empty.
    """
    _make_empty(folder, folder)
    written: list[Path] = []
    seen: list[ImageSet] = []
    for images in splits:
        place = folder / images.split
        place.mkdir()
        for row, pixels in enumerate(images.images):
            picture = pixels[..., 0] if pixels.shape[2] == 1 else pixels
            Image.fromarray(picture).save(place / f"{row:06}.png")
        if images.captions or images.class_names:
            lines = (json.dumps(_entry(images, row)) for row in range(len(images)))
            (place / METADATA[0]).write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(place)
        seen.append(images)
    (folder / CARD).write_text(card(seen), encoding="utf-8")
    return [*written, folder / CARD]


def card(splits: list[ImageSet]) -> str:
    """Writes a data card in Markdown: licence, source, counts, preparation, fingerprints.

    Names from the data stand in code spans, where neither Markdown nor HTML is read.
    """
    first = splits[0]
    height, width, channels = first.images.shape[1:]
    licence = first.licence or "not known; ask whoever made the images"
    known = [v for k, v in IDENTIFIERS.items() if first.licence.endswith(k)]
    resized = any(images.resized for images in splits)
    lines = [
        "---",
        f"license: {known[0] if known else 'other'}",
        "---",
        f"# {code(first.name)}",
        "",
        f"Images of {width}x{height} pixels, {'grey' if channels == 1 else 'RGB'}"
        + (", resized once (Pillow bicubic with antialiasing, centre crop)." if resized else "."),
        "",
        f"Licence: {code(licence)}.",
        "",
        "| split | images | left out as broken | fingerprint (native pixels, classes, captions) |",
        "|---|---|---|---|",
        *(
            f"| {code(images.split)} | {len(images)} | {len(images.broken)} "
            f"| `{images.fingerprint}` |"
            for images in splits
        ),
    ]
    if first.class_names:
        names = ", ".join(code(name) for name in first.class_names)
        lines += ["", f"Classes, in the order of the labels 0, 1, ...: {names}."]
    return "\n".join(lines) + "\n"


def code(name: str) -> str:
    """A name as a Markdown code span that also holds inside a table."""
    return f"`{name.replace('`', chr(39)).replace('|', '/')}`"


def _entry(images: ImageSet, row: int) -> dict[str, str]:
    entry = {"file_name": f"{row:06}.png"}
    if images.labels is not None:
        entry["label"] = images.class_names[images.labels[row]]
    if images.captions is not None:
        entry["text"] = images.captions[row]
    return entry


def _make_empty(needed: Path, folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; give the name of a new or empty folder")
    needed.mkdir(parents=True, exist_ok=True)
