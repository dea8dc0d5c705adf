"""The table of LoRA scorecards: one Parquet file for each LoRA, scale and set of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from prefect import task

from ddim_core.common.digest import code_digest, digest
from ddim_core.diffusion.specs import Execution
from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.lora.specs import LoraSpec
from tasks.storage.columns import MOMENT, NUMBER, TEXT, WHOLE, Column, schema_of
from tasks.storage.naming import run_name
from tasks.storage.row_files import RowFiles

if TYPE_CHECKING:
    import pandas as pd

# The modules whose code makes a number what it is.
CODE = ("tasks.lora.scoring.pictures", "tasks.lora.scoring.measure")
IDENTITY = ("lora_digest", "base_digest", "data_digest", "extractor_digest", "kind")
PARTS = ("", "_low", "_high", "_change", "_change_low", "_change_high", "_p_value")
COLUMNS = (
    Column("row_digest", TEXT),
    Column("lora_digest", TEXT),
    Column("base_digest", TEXT),
    Column("data_digest", TEXT),
    Column("extractor_digest", TEXT),
    Column("code_digest", TEXT),
    Column("kind", TEXT, "parameter"),
    Column("base", TEXT, "parameter"),
    Column("data", TEXT, "parameter"),
    Column("prompts", TEXT),
    Column("scale", NUMBER),
    Column("rank", WHOLE, "parameter"),
    Column("alpha", NUMBER, "parameter"),
    Column("training_steps", WHOLE, "parameter"),
    Column("n_images", WHOLE),
    Column("n_prompts", WHOLE),
    Column("steps", WHOLE, "parameter"),
    Column("guidance_scale", NUMBER, "parameter"),
    Column("resolution", WHOLE, "parameter"),
    Column("seed", WHOLE, "parameter"),
    Column("extractor", TEXT, "parameter"),
    *(Column(name + part, NUMBER) for name in MEANINGS for part in PARTS),
    Column("seconds", NUMBER),
    Column("images_per_second", NUMBER),
    Column("peak_memory_bytes", WHOLE),
    Column("training_seconds", NUMBER),
    Column("training_peak_memory_bytes", WHOLE),
    Column("device", TEXT),
    Column("created_at", MOMENT),
)
SCHEMA = schema_of(COLUMNS)

LORAS = RowFiles(
    "lora",
    "row_digest",
    SCHEMA,
    ("kind", "lora_digest", "prompts", "scale", "created_at"),
    "the next run of its `ddim lora` writes it again",
    SimpleNamespace,
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


def lora_rows(
    kind: str,
    record: Mapping[str, Any],
    spec: LoraSpec,
    asked: PromptSet,
    drawn: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Any],
    execution: Execution,
) -> list[dict[str, Any]]:
    """Puts together the rows of one prompt set, one for each scale.

    Args:
        kind: `style` or `subject`.
        record: What was trained: `lora`, `data`, `base`, `base_digests`, `title`, `training`.
        spec: How.
        asked: The prompts.
        drawn: The records of the pictures, by scale.
        scores: The record of `score_pictures`.
        execution: The device.
    """
    training = record["training"]
    shared = {
        "lora_digest": record["lora"]["artifact"],
        "base_digest": digest(record["base_digests"]),
        "data_digest": record["data"]["artifact"],
        "extractor_digest": scores["extractor_digest"],
        "code_digest": digest([code_digest(module) for module in CODE]),
        "kind": kind,
        "base": Path(record["base"]).name,
        "data": record["title"],
        "prompts": asked.role,
        "rank": spec.rank,
        "alpha": float(spec.rank) if spec.alpha is None else spec.alpha,
        "training_steps": training["steps"],
        "n_prompts": len(asked.prompts),
        "n_images": len(asked.texts),
        "steps": asked.steps,
        "guidance_scale": asked.guidance,
        "resolution": asked.resolution,
        "seed": asked.seed,
        "extractor": scores["extractor"],
        "training_seconds": training["seconds"],
        "training_peak_memory_bytes": training["peak_memory_bytes"],
        "device": execution.device,
    }
    protocol = [shared[name] for name in IDENTITY]
    return [
        {
            "row_digest": digest(asked, score["scale"], protocol),
            **shared,
            "scale": score["scale"],
            **flat(score["measures"]),
            "seconds": pictures["seconds"],
            "images_per_second": len(asked.texts) / pictures["seconds"],
            "peak_memory_bytes": pictures["peak_memory_bytes"],
            "created_at": scores["created_at"],
        }
        for score, pictures in zip(scores["scores"], drawn, strict=True)
    ]


@task(name="write-lora-rows", task_run_name=run_name("write-lora-rows"))
def write_lora_rows(rows: list[dict[str, Any]]) -> str:
    """Writes the rows, each whole or not at all, in place of older ones; returns their folder."""
    for row in rows:
        LORAS.write(row)
    return LORAS.folder


def read_lora_table() -> pd.DataFrame:
    """Returns all rows written so far.

    Raises:
        DamagedRowError: If a row is damaged.
    """
    return LORAS.read().whole().frame
