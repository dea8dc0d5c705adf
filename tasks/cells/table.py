"""What a row of the table of results says of its cell; `tasks.storage.cell_rows` writes and reads
it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ddim_core.common.digest import code_digest, digest
from ddim_core.common.printable import printable
from ddim_core.diffusion.schedule import timesteps
from ddim_core.diffusion.specs import GridCell
from ddim_core.features.protocol import Protocol
from tasks.checkpoints.open import CheckpointRecord
from tasks.storage import store
from tasks.storage.cell_rows import SCHEMA, read_rows, read_table, write_row

__all__ = [
    "SCHEMA", "cell_digest", "overrides", "protocol_record", "read_rows", "read_table", "row_of",
    "write_row",
]  # fmt: skip


# The modules whose code makes a number what it is, from noise to score.
CODE = ("tasks.cells.sample", "tasks.cells.embed", "tasks.cells.score")
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
        features=features["record"],
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
