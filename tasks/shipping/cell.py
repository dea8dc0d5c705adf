"""A cell as its row says it: what drew it, from which checkpoint, and its first images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.digest import digest
from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import GridCell, NoiseSpec, OnCard, SamplerSpec, SchedulerSpec
from tasks.cells.table import OWN
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.storage import store
from tasks.storage.store import ArtifactRef, DamagedArtifactError

AGAIN = "run its grid again, which makes it anew, and ship it then"


@dataclass(frozen=True, eq=False)
class ScoredCell:
    """A cell, and all that its images were drawn from.

    Attributes:
        row: Its row of the table.
        cell: What was asked for.
        checkpoint: The network, in the store.
        images: Its first images, uint8 [n, height, width, channels].
    """

    row: CellRow
    cell: GridCell
    checkpoint: ArtifactRef
    images: NDArray[np.uint8]


def scored_cell(row: CellRow, n_images: int) -> ScoredCell:
    """Puts a cell together again from its row, and takes its first images from the store.

    Raises:
        ValueError: If the row is of an older version, which kept less.
        DamagedArtifactError: If the images are no longer in the store as they were.
    """
    checkpoint = ArtifactRef(artifact=row.checkpoint_digest, kind="folder")
    cell = _cell_of(row, checkpoint)
    known = [row.extractor_digest, row.reference_digest, row.n_images, row.shard_size]
    if cell is None or digest(cell, checkpoint, known) != row.cell_digest:
        raise ValueError(
            f"the row {row.cell_digest[:12]} does not say all that drew its images, as those of "
            "older versions do not; run its grid again, and ship the row that it then writes"
        )
    return ScoredCell(row, cell, checkpoint, _first_images(row, n_images))


def _cell_of(row: CellRow, checkpoint: ArtifactRef) -> GridCell | None:
    told = json.loads(row.protocol) if row.protocol else {}
    asked = told.get("sampler") if isinstance(told, Mapping) else None
    if not isinstance(asked, Mapping) or "steps" not in asked:
        return None
    kind: Any = SchedulerSpec if "sampler" in asked else SamplerSpec
    names = {field.name for field in fields(kind)}
    noise, schedule, dtype = None, _any(row.noise_schedule), _any(row.dtype)
    if schedule != OWN:
        noise = NoiseSpec(schedule, checkpoint_in_memory(checkpoint).require_schedule().n_train)
    told = {name: _frozen(value) for name, value in asked.items() if name in names}
    sampler = kind(**told)
    card = OnCard(**asked["card"]) if isinstance(asked.get("card"), Mapping) else None
    return GridCell(sampler, noise, row.seed, dtype, row.prompts_digest, card)


def _frozen(value: Any) -> Any:
    """A value of a spec as it was before JSON: lists are tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _any(value: str) -> Any:
    """A choice that its record checks."""
    return value


def _first_images(row: CellRow, n_images: int) -> NDArray[np.uint8]:
    if not row.image_shards:
        raise ValueError(
            f"the row {row.cell_digest[:12]} does not say where its images are; {AGAIN}"
        )
    found: list[NDArray[np.uint8]] = []
    for artifact in row.image_shards:
        try:
            found.append(store.get_arrays(ArtifactRef(artifact, "shard"))["images"])
        except DamagedArtifactError as error:
            raise DamagedArtifactError(f"{error}; {AGAIN}") from error
        if sum(map(len, found)) >= n_images:
            break
    return np.concatenate(found)[:n_images]
