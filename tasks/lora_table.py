"""The table of LoRA scorecards: one Parquet file for each LoRA, scale and set of prompts."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task

from ddim_core.lora_measures import MEANINGS
from tasks import places, store

PARTS = ("", "_low", "_high", "_change", "_change_low", "_change_high", "_p_value")
SCHEMA = pa.schema(
    [
        ("row_digest", pa.string()),
        ("lora_digest", pa.string()),
        ("base_digest", pa.string()),
        ("data_digest", pa.string()),
        ("extractor_digest", pa.string()),
        ("code_digest", pa.string()),
        ("kind", pa.string()),
        ("base", pa.string()),
        ("data", pa.string()),
        ("prompts", pa.string()),
        ("scale", pa.float64()),
        ("rank", pa.int64()),
        ("alpha", pa.float64()),
        ("training_steps", pa.int64()),
        ("n_images", pa.int64()),
        ("n_prompts", pa.int64()),
        ("steps", pa.int64()),
        ("guidance_scale", pa.float64()),
        ("resolution", pa.int64()),
        ("seed", pa.int64()),
        ("extractor", pa.string()),
        *((name + part, pa.float64()) for name in MEANINGS for part in PARTS),
        ("seconds", pa.float64()),
        ("images_per_second", pa.float64()),
        ("peak_memory_bytes", pa.int64()),
        ("training_seconds", pa.float64()),
        ("training_peak_memory_bytes", pa.int64()),
        ("device", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
    ]
)


def flat(measures: dict[str, Any]) -> dict[str, float | None]:
    """Spreads a scale's measures over columns: NAME, NAME_low, ..., NAME_change, ..."""
    columns: dict[str, float | None] = {}
    for name in MEANINGS:
        measure = measures.get(name) or {}
        moved = measure.get("change") or {}
        values = (
            measure.get("value"), measure.get("low"), measure.get("high"),
            moved.get("value"), moved.get("low"), moved.get("high"), moved.get("p_value"),
        )  # fmt: skip
        columns |= {name + part: value for part, value in zip(PARTS, values, strict=True)}
    return columns


@task(name="write-lora-rows")
def write_lora_rows(rows: list[dict[str, Any]]) -> str:
    """Writes the rows, each whole or not at all, in place of older ones; returns their folder."""
    for row in rows:
        created_at = datetime.fromisoformat(row["created_at"])
        table = pa.Table.from_pylist([{**row, "created_at": created_at}], schema=SCHEMA)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        url = places.data_url("results", "lora", f"{row['row_digest']}.parquet")
        store.write_whole(url, buffer.getvalue())
    return places.data_url("results", "lora")


def read_lora_table() -> pd.DataFrame:
    """Returns all rows written so far."""
    filesystem, folder = fsspec.core.url_to_fs(places.data_url("results", "lora"))
    files = filesystem.glob(f"{folder}/*.parquet") if filesystem.isdir(folder) else []
    tables = [pq.read_table(filesystem.open(file), schema=SCHEMA) for file in sorted(files)]
    frame = pa.concat_tables(tables).to_pandas() if tables else SCHEMA.empty_table().to_pandas()
    order = ["kind", "lora_digest", "prompts", "scale", "created_at"]
    return frame.sort_values(order, ignore_index=True)
