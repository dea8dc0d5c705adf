"""The table of LoRA scorecards: one Parquet file for each LoRA, scale and set of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class ScoredLora:
    """What is known of a LoRA that is scored; of one that somebody else trained not all.

    Attributes:
        digest, base_digest, data_digest: Of its file, its base, and what it is compared with.
        base, data: The names of the last two.
        rank, alpha, training_steps, training_seconds, training_peak_memory_bytes: Of its training.
        sampler: That drew; None is the base's own.
        name, number: Of its file, and the epoch or step that this says.
    """

    digest: str
    base_digest: str
    data_digest: str
    base: str
    data: str
    rank: int | None = None
    alpha: float | None = None
    training_steps: int | None = None
    training_seconds: float | None = None
    training_peak_memory_bytes: int | None = None
    sampler: str | None = None
    name: str | None = None
    number: int | None = None


def trained_here(record: LoraRecord, spec: LoraSpec) -> ScoredLora:
    """What is known of a LoRA that was trained here."""
    return ScoredLora(
        record.lora.artifact, digest(record.base_digests), record.data.artifact,
        Path(record.base).name, record.title, spec.rank,
        float(spec.rank) if spec.alpha is None else spec.alpha, record.training.steps,
        record.training.seconds, record.training.peak_memory_bytes,
    )  # fmt: skip


def lora_rows(
    kind: str,
    of: ScoredLora,
    asked: PromptSet,
    drawn: Sequence[DrawnPictures],
    scores: PictureScores,
    execution: Execution,
) -> list[LoraRow]:
    """Puts together the rows of one prompt set, one for each scale.

    Args:
        kind: `style` or `subject`.
        of: The LoRA.
        asked: The prompts.
        drawn: Their pictures, by scale.
        scores: The measures of these.
        execution: The device.
    """
    protocol = [of.digest, of.base_digest, of.data_digest, scores.extractor_digest, kind]
    if of.sampler is not None:
        protocol.append(of.sampler)
    if on_card := card_kind(execution.device):  # a row of a CPU stays beside it
        protocol.append(on_card)
    return [
        LoraRow(
            row_digest=digest(asked, score.scale, protocol),
            lora_digest=of.digest,
            base_digest=of.base_digest,
            data_digest=of.data_digest,
            extractor_digest=scores.extractor_digest,
            code_digest=digest([code_digest(module) for module in CODE]),
            kind=kind,
            base=of.base,
            data=of.data,
            prompts=asked.role,
            scale=score.scale,
            rank=of.rank,
            alpha=of.alpha,
            training_steps=of.training_steps,
            n_images=len(asked.texts),
            n_prompts=len(asked.prompts),
            steps=asked.steps,
            guidance_scale=asked.guidance,
            resolution=asked.resolution,
            seed=asked.seed,
            extractor=scores.extractor,
            sampler=of.sampler,
            lora=of.name,
            lora_number=of.number,
            measures=score.measures,
            seconds=pictures.seconds,
            images_per_second=len(asked.texts) / pictures.seconds,
            peak_memory_bytes=pictures.peak_memory_bytes,
            training_seconds=of.training_seconds,
            training_peak_memory_bytes=of.training_peak_memory_bytes,
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
