"""Numbers of a cell's images in, their mean with its interval out; and a row's columns of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddim_core.image_scores.mean import MeanScore, mean_score
from ddim_core.image_scores.registry import SCORES
from tasks.image_scores.judge import values_of
from tasks.image_scores.ready import StoredScore
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class JudgedCell:
    """A cell by one score of images.

    Attributes:
        mean: With its interval.
        n_prompts: That the images were drawn for, in turn; None where there are none.
        shards: The numbers of its images, artefacts in order of image index.
    """

    mean: MeanScore
    n_prompts: int | None
    shards: list[str]


@cached_task
def mean_of_images(
    values: Sequence[ArtifactRef], n_prompts: int | None, group_sizes: list[int]
) -> JudgedCell:
    """Takes the mean of a cell's numbers, with its interval.

    Args:
        values: Of its shards, in order of image index.
        n_prompts: Prompts that the images were drawn for, in turn.
        group_sizes: Of the cell's other scores.
    """
    shards = [shard.artifact for shard in values]
    return JudgedCell(mean_score(values_of(shards), group_sizes, n_prompts), n_prompts, shards)


def score_columns(
    scores: Sequence[StoredScore], judged: Mapping[str, JudgedCell]
) -> dict[str, Any]:
    """Returns the columns of all scores of images; None in those of scores that were not asked.

    Args:
        scores: Those that were.
        judged: The cell by each of these, by column.
    """
    columns: dict[str, Any] = {}
    for kind in SCORES.values():
        cell = judged.get(kind.column)
        for name in ("value", "low", "high", "leave_one_out"):
            column = kind.column + ("" if name == "value" else f"_{name}")
            columns[column] = getattr(cell.mean, name) if cell else None
    asked = {score.column: score.artifact for score in scores}
    shards = {column: cell.shards for column, cell in judged.items()}
    return columns | {
        "image_scores": json.dumps(asked, sort_keys=True) if asked else None,
        "image_score_shards": json.dumps(shards, sort_keys=True) if asked else None,
        "image_score_prompts": next((cell.n_prompts for cell in judged.values()), None),
        "image_score_group_sizes": next((cell.mean.group_sizes for cell in judged.values()), None),
    }
