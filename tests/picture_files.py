"""Data sets in the forms that people have them in, made small by the tests."""

from __future__ import annotations

import io
import json
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


def drawn(file: Traversable) -> NDArray[np.uint8]:
    """The RGBA pixels [h, w, 4] of a drawing that comes with a package."""
    with file.open("rb") as content, Image.open(content) as drawing:
        return np.asarray(drawing.convert("RGBA"))


def picture(seed: int, size: int = 24) -> NDArray[np.uint8]:
    """A coloured picture of broad patches, so that JPEG keeps most of it."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.kron(patches, np.ones((size // 4, size // 4, 1), np.uint8))


def encoded(pixels: NDArray[np.uint8], form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def afhq(folder: Path, each: int = 2) -> Path:
    """The layout of AFHQ: `{train,val}/{cat,dog,wild}/*.jpg`."""
    for k, split in enumerate(("train", "val")):
        for j, name in enumerate(("cat", "dog", "wild")):
            (folder / split / name).mkdir(parents=True)
            for i in range(each):
                file = folder / split / name / f"flickr_{name}_{i:06}.jpg"
                file.write_bytes(encoded(picture(100 * k + 10 * j + i), "JPEG"))
    return folder


def cifar(path: Path, n: int = 12) -> Path:
    """CIFAR-10 as the hub has it: Parquet with `img` and `label`, class names in the schema."""
    from datasets import ClassLabel, Features, Image

    features = Features({"img": Image(), "label": ClassLabel(names=["airplane", "bird", "cat"])})
    cells = [{"bytes": encoded(picture(i, 32)), "path": None} for i in range(n)]
    table = pa.table(
        {"img": cells, "label": [i % 3 for i in range(n)]}, schema=features.arrow_schema
    )
    pq.write_table(table, path)
    return path


def captioned(folder: Path, n: int = 4) -> Path:
    """A style folder: `train/0000.png`, ..., and `train/metadata.jsonl`."""
    (folder / "train").mkdir(parents=True)
    lines = []
    for i in range(n):
        (folder / "train" / f"{i:04}.png").write_bytes(encoded(picture(i)))
        lines.append(json.dumps({"file_name": f"{i:04}.png", "text": f"picture {i}"}))
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder
