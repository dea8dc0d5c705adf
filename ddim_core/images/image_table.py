"""Image sets as Arrow and Parquet, in the form of Hugging Face `datasets`: image, label, caption.

The stored form is an Arrow stream of uncompressed pixels behind PPM headers: `datasets` opens it
(`load_dataset("arrow", data_files=...)`, `Dataset.from_file`), it reads back without decoding, and
its bytes depend on the content alone, not on the version of a codec. The form to give away is
Parquet with PNGs.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from ddim_core.images.image_set import ImageSet
from ddim_core.images.sources.decode import netpbm

ABOUT = b"ddim"
BATCH_BYTES = 2**28  # one batch of a binary column holds less than 2^31 bytes


def to_arrow(images: ImageSet) -> bytes:
    """Writes a set as an Arrow stream, without what people call it: equal content, equal bytes."""
    about = {
        "fingerprint": images.fingerprint,
        "licence": images.licence,
        "resized": images.resized,
    }
    schema = _schema(images).with_metadata(
        {**_schema(images).metadata, ABOUT: json.dumps(about, sort_keys=True).encode()}
    )
    size = max(1, BATCH_BYTES // images.images[0].nbytes)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as stream:
        for start in range(0, len(images), size):
            rows = slice(start, start + size)
            column = _raw_column(images.images[rows])
            stream.write_batch(pa.record_batch(_columns(images, rows, column), schema=schema))
    return sink.getvalue()


def from_arrow(data: bytes) -> ImageSet:
    """Reads what `to_arrow` wrote; the set has no name, and no list of broken images."""
    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    about = json.loads(table.schema.metadata[ABOUT])
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    names = table.column_names
    captions = table.column("caption").to_pylist() if "caption" in names else None
    return ImageSet(
        images=np.concatenate([_pixels(chunk) for chunk in table.column("image").chunks]),
        labels=table.column("label").to_numpy().copy() if "label" in names else None,
        name="",
        split="",
        class_names=tuple(features["label"]["names"]) if "label" in names else (),
        captions=None if captions is None else tuple(captions),
        **about,
    )


def write_parquet(images: ImageSet, path: str) -> None:
    """Writes a set as Parquet with an image column of PNGs, which `load_dataset` opens."""
    schema = _schema(images)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(images), 1000):
            rows = slice(start, start + 1000)
            pngs = pa.array([_png(pixels) for pixels in images.images[rows]], pa.binary())
            writer.write_batch(pa.record_batch(_columns(images, rows, pngs), schema=schema))


def _schema(images: ImageSet) -> pa.Schema:
    from datasets import ClassLabel, Features, Image, Value  # slow to import

    columns = {"image": Image()}
    if images.labels is not None:
        columns["label"] = ClassLabel(names=list(images.class_names))
    if images.captions is not None:
        columns["caption"] = Value("string")
    return Features(columns).arrow_schema


def _columns(images: ImageSet, rows: slice, encoded: pa.Array) -> list[pa.Array]:
    paths = pa.nulls(len(encoded), pa.string())
    columns = [pa.StructArray.from_arrays([encoded, paths], ["bytes", "path"])]
    if images.labels is not None:
        columns.append(pa.array(images.labels[rows], pa.int64()))
    if images.captions is not None:
        columns.append(pa.array(images.captions[rows], pa.string()))
    return columns


def _raw_column(pixels: NDArray[np.uint8]) -> pa.Array:
    """One binary column of PPM files, made without a loop over images."""
    n = len(pixels)
    first = np.frombuffer(netpbm(pixels[0]), dtype=np.uint8)
    header = first[: len(first) - pixels[0].nbytes]
    rows = np.concatenate([np.tile(header, (n, 1)), pixels.reshape(n, -1)], axis=1)
    offsets = np.arange(n + 1, dtype=np.int32) * rows.shape[1]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), n, buffers)


def _pixels(chunk: pa.StructArray) -> NDArray[np.uint8]:
    column = chunk.field("bytes")
    first = column[0].as_py()
    kind, size, _, _ = first.split(b"\n", 3)
    width, height = (int(side) for side in size.split())
    channels = {b"P5": 1, b"P6": 3}[kind]
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset :]
    rows = np.frombuffer(column.buffers()[2], dtype=np.uint8)
    rows = rows[offsets[0] : offsets[0] + len(column) * len(first)].reshape(len(column), -1)
    return rows[:, len(first) - height * width * channels :].reshape(-1, height, width, channels)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()
