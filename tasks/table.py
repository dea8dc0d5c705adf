"""The table of results: one Parquet file a row, named by the cell's digest."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

from ddim_core.digest import code_digest, digest
from ddim_core.schedule import timesteps
from ddim_core.sources import printable
from ddim_core.specs import GridCell
from tasks import places, store
from tasks.checkpoint import CheckpointRecord

SCHEMA = pa.schema(
    [
        ("cell_digest", pa.string()),
        ("checkpoint_digest", pa.string()),
        ("reference_digest", pa.string()),
        ("extractor_digest", pa.string()),
        ("code_digest", pa.string()),
        ("checkpoint", pa.string()),
        ("dataset", pa.string()),
        ("split", pa.string()),
        ("extractor", pa.string()),
        ("resize", pa.string()),
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
        ("shard_size", pa.int64()),
        ("resolution", pa.int64()),
        ("fid", pa.float64()),
        ("fid_low", pa.float64()),
        ("fid_high", pa.float64()),
        ("fid_inf", pa.float64()),
        ("fid_inf_low", pa.float64()),
        ("fid_inf_high", pa.float64()),
        ("fid_leave_one_out", pa.list_(pa.float64())),
        ("group_sizes", pa.list_(pa.int64())),
        ("kid", pa.float64()),
        ("kid_std", pa.float64()),
        ("precision", pa.float64()),
        ("recall", pa.float64()),
        ("class_accuracy", pa.float64()),
        ("class_accuracy_low", pa.float64()),
        ("class_accuracy_high", pa.float64()),
        ("nfe", pa.int64()),
        ("sample_seconds", pa.float64()),
        ("images_per_second", pa.float64()),
        ("device", pa.string()),
        ("dtype", pa.string()),
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
    return {
        "cell_digest": cell_digest(cell, checkpoint["ref"], protocol),
        "checkpoint_digest": checkpoint["ref"]["artifact"],
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
        **protocol,
        **score,
    }


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


@task(name="write-row")
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


def read_table(cells: Collection[str] | None = None) -> pd.DataFrame:
    """Returns the rows written so far, in the order of the grid.

    Args:
        cells: Digests of the cells wanted; None takes all.

    Raises:
        StoreError: If a row's file is damaged; the next run of its grid writes it again.
    """
    filesystem, folder = fsspec.core.url_to_fs(places.data_url("results", "cells"))
    files = filesystem.glob(f"{folder}/*.parquet") if filesystem.isdir(folder) else []
    wanted = [f for f in sorted(files) if cells is None or _cell_of(f) in cells]
    tables = [_read_row(filesystem, file) for file in wanted]
    frame = pa.concat_tables(tables).to_pandas() if tables else SCHEMA.empty_table().to_pandas()
    order = ["checkpoint", "dataset", "n_images", "variance", "eta", "steps", "created_at"]
    return frame.sort_values(order, ignore_index=True)


def _cell_of(file: str) -> str:
    return file.rsplit("/", 1)[-1].removesuffix(".parquet")


def _read_row(filesystem: Any, file: str) -> pa.Table:
    try:
        with filesystem.open(file) as content:
            return pq.read_table(content, schema=SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise store.StoreError(
            f"the row in {file} is damaged ({error}); delete it, and the next run of its grid "
            "writes it again"
        ) from error
