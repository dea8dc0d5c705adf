"""The table of results: one Parquet file a row, named by the cell's digest."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ddim_core.digest import code_digest, digest
from ddim_core.features import FeatureRecord
from ddim_core.protocol import Protocol
from ddim_core.schedule import timesteps
from ddim_core.sources import printable
from ddim_core.specs import GridCell
from tasks import places, store
from tasks.checkpoint import CheckpointRecord

SCHEMA = pa.schema(
    [
        ("cell_digest", pa.string()),
        ("checkpoint_digest", pa.string()),
        ("weights_digest", pa.string()),
        ("reference_digest", pa.string()),
        ("extractor_digest", pa.string()),
        ("code_digest", pa.string()),
        ("checkpoint", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("extractor", pa.string()),
        ("resize", pa.string()),
        ("data_resize", pa.string()),
        ("extractor_weights_digest", pa.string()),
        ("layer", pa.string()),
        ("native_size", pa.string()),
        ("statistics_digest", pa.string()),
        ("protocol", pa.string()),
        ("training_step", pa.int64()),
        ("weights", pa.string()),
        ("steps", pa.int64()),
        ("eta", pa.float64()),
        ("variance", pa.string()),
        ("spacing", pa.string()),
        ("prediction_type", pa.string()),
        ("noise_schedule", pa.string()),
        ("overrides", pa.string()),
        ("prompts_digest", pa.string()),
        ("clip", pa.bool_()),
        ("guidance_scale", pa.float64()),
        ("timesteps", pa.list_(pa.int32())),
        ("seed", pa.int64()),
        ("n_images", pa.int64()),
        ("n_reference", pa.int64()),
        ("n_features", pa.int64()),
        ("shard_size", pa.int64()),
        ("resolution", pa.int64()),
        ("fid", pa.float64()),
        ("fid_low", pa.float64()),
        ("fid_high", pa.float64()),
        ("fid_inf", pa.float64()),
        ("fid_inf_low", pa.float64()),
        ("fid_inf_high", pa.float64()),
        ("fid_leave_one_out", pa.list_(pa.float64())),
        ("fid_inf_leave_one_out", pa.list_(pa.float64())),
        ("group_sizes", pa.list_(pa.int64())),
        ("kid", pa.float64()),
        ("kid_se", pa.float64()),
        ("kid_low", pa.float64()),
        ("kid_high", pa.float64()),
        ("kid_std", pa.float64()),
        ("kid_subset_size", pa.int64()),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
        ("inception_score", pa.float64()),
        ("inception_score_std", pa.float64()),
        ("cmmd", pa.float64()),
        ("cmmd_low", pa.float64()),
        ("cmmd_high", pa.float64()),
        ("class_accuracy", pa.float64()),
        ("class_accuracy_low", pa.float64()),
        ("class_accuracy_high", pa.float64()),
        ("nfe", pa.int64()),
        ("sample_seconds", pa.float64()),
        ("images_per_second", pa.float64()),
        ("device", pa.string()),
        ("dtype", pa.string()),
        ("image_shards", pa.list_(pa.string())),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)


# The modules whose code makes a number what it is, from noise to score.
CODE = ("tasks.sample", "tasks.embed", "tasks.score")
OWN = "checkpoint"  # the noise schedule that is not overridden
NO_CLASSES = dict.fromkeys(("class_accuracy", "class_accuracy_low", "class_accuracy_high"))
PROTOCOL = ("extractor_digest", "reference_digest", "n_images", "shard_size")


def cell_digest(cell: GridCell, checkpoint: store.ArtifactRef, protocol: dict[str, Any]) -> str:
    """Returns the identity of a row: the cell, its checkpoint, and the protocol it is scored by.

    Another protocol is another row; what people call the data set plays no part.
    """
    return digest(cell, checkpoint, [protocol[name] for name in PROTOCOL])


def row_of(
    cell: GridCell,
    checkpoint: CheckpointRecord,
    protocol: dict[str, Any],
    score: dict[str, Any],
    shards: list[dict[str, Any]],
) -> dict[str, Any]:
    """Puts together a cell's row from the records of its tasks."""
    sampler = cell.sampler
    visited = timesteps(checkpoint["n_train"], sampler.steps, sampler.spacing, sampler.steps_offset)
    seconds = float(sum(shard["seconds"] for shard in shards))
    record = protocol_record(cell, protocol, score)
    return {
        "cell_digest": cell_digest(cell, checkpoint["ref"], protocol),
        "checkpoint_digest": checkpoint["ref"]["artifact"],
        "weights_digest": checkpoint["weights_digest"],
        "code_digest": digest([code_digest(module) for module in CODE]),
        "checkpoint": printable(checkpoint["name"]),
        "training_step": checkpoint["training_step"],
        "weights": checkpoint["weights"],
        "resolution": checkpoint["resolution"],
        **asdict(sampler),
        "noise_schedule": cell.noise.kind if cell.noise else OWN,
        "overrides": overrides(cell, checkpoint),
        "prompts_digest": cell.prompts,
        "seed": cell.seed,
        "dtype": cell.dtype,
        "timesteps": visited,
        # Guidance asks the network twice, with the class and without.
        "nfe": len(visited) * (1 if sampler.guidance_scale in (0.0, 1.0) else 2),
        **NO_CLASSES,
        "sample_seconds": seconds,
        "images_per_second": score["n_images"] / seconds,
        "device": shards[0]["device"],
        "image_shards": [shard["artifact"] for shard in shards],
        "extractor_weights_digest": (
            record.features.extractor_weights_digest if record.features else None
        ),
        "layer": record.features.layer if record.features else None,
        "native_size": record.native_size,
        "protocol": record.to_json(),
        **{name: value for name, value in protocol.items() if name != "features"},
        **score,
    }


def protocol_record(cell: GridCell, protocol: dict[str, Any], score: dict[str, Any]) -> Protocol:
    """Returns all that a cell's score has to be compared at."""
    features = protocol["features"]
    return Protocol(
        features=FeatureRecord(**features["record"]),
        native_size=features["size"],
        reference_native_size=features["size"],
        data_resize=protocol["data_resize"],
        n_images=score["n_images"],
        n_reference=score["n_reference"],
        shard_size=protocol["shard_size"],
        reference_digest=protocol["reference_digest"],
        reference=protocol["dataset"],
        split=protocol["split"],
        statistics_digest=score["statistics_digest"],
        sampler={**asdict(cell.sampler), "dtype": cell.dtype},
        seed=cell.seed,
        versions=features["versions"] | score["versions"],
    )


def overrides(cell: GridCell, checkpoint: CheckpointRecord) -> str:
    """Says in which settings a cell departs from its checkpoint's own; empty if in none."""
    departures = []
    if cell.noise:
        departures.append(f"noise schedule {cell.noise.kind}, not the checkpoint's own")
    if cell.sampler.prediction_type != checkpoint["prediction_type"]:
        departures.append(
            f"prediction type {cell.sampler.prediction_type}, not the checkpoint's "
            f"{checkpoint['prediction_type']}"
        )
    return "; ".join(departures)


def write_row(row: dict[str, Any]) -> str:
    """Writes one row, whole or not at all, in place of an older one of the same cell.

    Returns the file's place. Written from the record each time, so a deleted row comes back.
    """
    created_at = pd.Timestamp(row["created_at"]).to_pydatetime()
    table = pa.Table.from_pylist([{**row, "created_at": created_at}], schema=SCHEMA)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    url = places.data_url("results", "cells", f"{row['cell_digest']}.parquet")
    store.write_whole(url, buffer.getvalue())
    return url


def read_table(
    cells: Collection[str] | None = None, alike: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Returns the rows written so far, in the order of the grid.

    Args:
        cells: Digests of the cells wanted; None takes all.
        alike: Values that a row must have in these columns, None for none; of other rows nothing
            else is read.

    Raises:
        StoreError: If the file of a row, as far as it is read, is damaged; the next run of its
            grid writes it again.
    """
    folder = places.data_url("results", "cells")
    files = [f for f in sorted(store.names_below(folder)) if f.endswith(".parquet")]
    wanted = [f for f in files if cells is None or f.removesuffix(".parquet") in cells]
    tables = [_read_row(f"{folder}/{file}", alike or {}) for file in wanted]
    found = [table for table in tables if table is not None]
    frame = pa.concat_tables(found).to_pandas() if found else SCHEMA.empty_table().to_pandas()
    order = ["checkpoint", "dataset", "n_images", "variance", "eta", "steps", "created_at"]
    return frame.sort_values(order, ignore_index=True)


def _read_row(url: str, alike: Mapping[str, Any]) -> pa.Table | None:
    """Reads a row; None if it is not alike."""
    content = pa.BufferReader(store.read(url))
    try:
        file = pq.ParquetFile(content)
        if alike:
            (found,) = file.read(columns=list(alike), use_threads=False).to_pylist()
            if any(found.get(name) != value for name, value in alike.items()):
                return None
        if file.schema_arrow.equals(SCHEMA):  # twice as fast
            return file.read(use_threads=False)
        return pq.read_table(content, schema=SCHEMA)
    # A damaged name is no UTF-8, a file of no row or of two has not one to unpack: ValueErrors.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise store.StoreError(
            f"the row in {url} is damaged ({error}); delete it, and the next run of its grid "
            "writes it again"
        ) from error
