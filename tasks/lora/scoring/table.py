"""The table of LoRA scorecards: one Parquet file for each LoRA, scale and set of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from prefect import task

from ddim_core.common.digest import code_digest, digest
from ddim_core.devices.names import card_kind, kind_of
from ddim_core.diffusion.specs import Execution
from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.row import Cost, LoraRow, Score, Scored
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.lora.specs import LoraSpec
from tasks.lora.record import LoraRecord
from tasks.lora.scoring.measure import PictureScores
from tasks.lora.scoring.pictures import DrawnPictures
from tasks.storage.columns import NUMBER, Column, columns_of, schema_of
from tasks.storage.naming import run_name
from tasks.storage.row_files import RowFiles

if TYPE_CHECKING:
    import pandas as pd

# The modules whose code makes a number what it is.
CODE = ("tasks.lora.scoring.pictures", "tasks.lora.scoring.measure")
PARTS = ("", "_low", "_high", "_change", "_change_low", "_change_high", "_p_value")
COLUMNS = (
    *columns_of(Scored),
    *(Column(name + part, NUMBER) for name in MEANINGS for part in PARTS),
    *columns_of(Cost),
)
SCHEMA = schema_of(COLUMNS)

LORAS = RowFiles(
    "lora",
    "row_digest",
    SCHEMA,
    ("kind", "lora_digest", "prompts", "scale", "created_at"),
    "the next run of its `ddim lora` writes it again",
    SimpleNamespace,  # they are read as a frame alone
)


def lora_rows(
    kind: str,
    record: LoraRecord,
    spec: LoraSpec,
    asked: PromptSet,
    drawn: Sequence[DrawnPictures],
    scores: PictureScores,
    execution: Execution,
) -> list[LoraRow]:
    """Puts together the rows of one prompt set, one for each scale.

    Args:
        kind: `style` or `subject`.
        record: What was trained.
        spec: How.
        asked: The prompts.
        drawn: Their pictures, by scale.
        scores: The measures of these.
        execution: The device.
    """
    lora, data, base = record.lora.artifact, record.data.artifact, digest(record.base_digests)
    protocol = [lora, base, data, scores.extractor_digest, kind]
    if on_card := card_kind(execution.device):  # a row of a CPU stays beside it
        protocol.append(on_card)
    return [
        LoraRow(
            row_digest=digest(asked, score.scale, protocol),
            lora_digest=lora,
            base_digest=base,
            data_digest=data,
            extractor_digest=scores.extractor_digest,
            code_digest=digest([code_digest(module) for module in CODE]),
            kind=kind,
            base=Path(record.base).name,
            data=record.title,
            prompts=asked.role,
            scale=score.scale,
            rank=spec.rank,
            alpha=float(spec.rank) if spec.alpha is None else spec.alpha,
            training_steps=record.training.steps,
            n_images=len(asked.texts),
            n_prompts=len(asked.prompts),
            steps=asked.steps,
            guidance_scale=asked.guidance,
            resolution=asked.resolution,
            seed=asked.seed,
            extractor=scores.extractor,
            measures=score.measures,
            seconds=pictures.seconds,
            images_per_second=len(asked.texts) / pictures.seconds,
            peak_memory_bytes=pictures.peak_memory_bytes,
            training_seconds=record.training.seconds,
            training_peak_memory_bytes=record.training.peak_memory_bytes,
            device=kind_of(execution.device),
            created_at=scores.created_at,
        )
        for score, pictures in zip(scores.scores, drawn, strict=True)
    ]


@task(name="write-lora-rows", task_run_name=run_name("write-lora-rows"))
def write_lora_rows(rows: list[LoraRow]) -> str:
    """Writes the rows, each whole or not at all, in place of older ones; returns their folder."""
    for row in rows:
        columns = {k: v for k, v in vars(row).items() if k != "measures"}
        LORAS.write(columns | _measured(row.measures))
    return LORAS.folder


def _measured(measures: Mapping[str, Score]) -> dict[str, float | None]:
    """The columns of all measures: NAME, NAME_low, ..., NAME_change, ..."""
    columns: dict[str, float | None] = {}
    for name, score in measures.items():
        moved = score.change
        values = [score.value, score.low, score.high]
        values += [moved.value, moved.low, moved.high, moved.p_value] if moved else [None] * 4
        columns |= {name + part: value for part, value in zip(PARTS, values, strict=True)}
    return columns


def read_lora_table() -> pd.DataFrame:
    """Returns all rows written so far.

    Raises:
        DamagedRowError: If a row is damaged.
    """
    return LORAS.read().whole().frame
