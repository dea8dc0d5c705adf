"""The rows of the table of results: their columns, and how they are written and read.

Apart from `tasks.cells.table`, which makes them: this imports neither Prefect nor torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tasks.storage.columns import (
    MOMENT,
    NUMBER,
    NUMBERS,
    TEXT,
    TEXTS,
    TIMESTEPS,
    TRUTH,
    WHOLE,
    WHOLES,
    Column,
    schema_of,
)
from tasks.storage.row_files import Found, RowFiles

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    Column("cell_digest", TEXT),
    Column("checkpoint_digest", TEXT),
    Column("weights_digest", TEXT),
    Column("reference_digest", TEXT),
    Column("extractor_digest", TEXT),
    Column("code_digest", TEXT),
    Column("checkpoint", TEXT, "shared"),
    Column("dataset", TEXT, "shared"),
    Column("split", TEXT, "shared"),
    Column("extractor", TEXT, "shared"),
    Column("resize", TEXT, "shared"),
    Column("data_resize", TEXT),
    Column("extractor_weights_digest", TEXT),
    Column("layer", TEXT),
    Column("native_size", TEXT),
    Column("statistics_digest", TEXT),
    Column("protocol", TEXT),
    Column("training_step", WHOLE, "shared"),
    Column("weights", TEXT, "parameter"),
    Column("steps", WHOLE, "parameter"),
    Column("eta", NUMBER, "parameter"),
    Column("variance", TEXT, "parameter"),
    Column("spacing", TEXT, "shared"),
    Column("prediction_type", TEXT, "parameter"),
    Column("noise_schedule", TEXT, "parameter"),
    Column("overrides", TEXT, "parameter"),
    Column("prompts_digest", TEXT, "parameter"),
    Column("clip", TRUTH, "parameter"),
    Column("guidance_scale", NUMBER, "parameter"),
    Column("timesteps", TIMESTEPS),
    Column("seed", WHOLE, "shared"),
    Column("n_images", WHOLE, "shared"),
    Column("n_reference", WHOLE, "shared"),
    Column("n_features", WHOLE),
    Column("shard_size", WHOLE, "shared"),
    Column("resolution", WHOLE, "shared"),
    Column("fid", NUMBER, "metric"),
    Column("fid_low", NUMBER, "metric"),
    Column("fid_high", NUMBER, "metric"),
    Column("fid_inf", NUMBER, "metric"),
    Column("fid_inf_low", NUMBER, "metric"),
    Column("fid_inf_high", NUMBER, "metric"),
    Column("fid_leave_one_out", NUMBERS),
    Column("fid_inf_leave_one_out", NUMBERS),
    Column("group_sizes", WHOLES),
    Column("kid", NUMBER, "metric"),
    Column("kid_se", NUMBER),
    Column("kid_low", NUMBER),
    Column("kid_high", NUMBER),
    Column("kid_std", NUMBER, "metric"),
    Column("kid_subset_size", WHOLE),
    Column("precision", NUMBER, "metric"),
    Column("recall", NUMBER, "metric"),
    Column("inception_score", NUMBER),
    Column("inception_score_std", NUMBER),
    Column("cmmd", NUMBER),
    Column("cmmd_low", NUMBER),
    Column("cmmd_high", NUMBER),
    Column("class_accuracy", NUMBER, "metric"),
    Column("class_accuracy_low", NUMBER),
    Column("class_accuracy_high", NUMBER),
    Column("nfe", WHOLE, "metric"),
    Column("sample_seconds", NUMBER, "metric"),
    Column("images_per_second", NUMBER, "metric"),
    Column("device", TEXT),
    Column("dtype", TEXT, "parameter"),
    Column("image_shards", TEXTS),
    Column("created_at", MOMENT),
)
SCHEMA = schema_of(COLUMNS)


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
