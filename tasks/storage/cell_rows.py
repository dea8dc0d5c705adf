"""The rows of the table of results: their columns, and how they are written and read.

Apart from `tasks.cells.table`, which makes them: this imports neither Prefect nor torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.storage.row_files import Found, RowFiles

if TYPE_CHECKING:
    import pandas as pd

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


CELLS = RowFiles(
    "cells",
    "cell_digest",
    SCHEMA,
    ("checkpoint", "dataset", "n_images", "variance", "eta", "steps", "created_at"),
    "the next run of its grid writes it again",
    ("fid", "fid_inf"),
)


def write_row(row: dict[str, Any]) -> str:
    """Writes one row, whole or not at all, in place of an older one of the same cell.

    Returns the file's place. Written from the record each time, so a deleted row comes back.
    """
    return CELLS.write(row)


def read_rows(
    cells: Collection[str] | None = None, alike: Mapping[str, Any] | None = None
) -> Found:
    """Returns the rows written so far, in the order of the grid, and which had to be left out.

    Args:
        cells: Digests of the cells wanted; None takes all.
        alike: Values that a row must have in these columns, None for none.
    """
    return CELLS.read(cells, alike)


def read_table(
    cells: Collection[str] | None = None, alike: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Returns what `read_rows` does, where nothing may be missing.

    Raises:
        DamagedRowError: If a row is damaged; its grid's next run writes it again.
    """
    return read_rows(cells, alike).whole()
