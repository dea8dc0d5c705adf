"""What a row of the table of results says of its cell; `tasks.storage.cell_rows` writes and reads
it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ddim_core.common.digest import code_digest, digest, said_by
from ddim_core.common.printable import printable
from ddim_core.decisions.row import CellRow, floor_text, interval_text
from ddim_core.devices.names import card_kind
from ddim_core.diffusion.specs import GridCell
from ddim_core.features.protocol import Protocol
from ddim_core.scores.cell_score import CellScore
from tasks.cells.classes import ClassScores
from tasks.cells.embed import FeatureShard
from tasks.cells.extractor import StoredExtractor
from tasks.cells.reference import STATISTICS
from tasks.cells.score import ScoredCell
from tasks.cells.settings import settings_of
from tasks.checkpoints.loras import StoredLora
from tasks.checkpoints.open import CheckpointRecord
from tasks.image_scores.mean import JudgedCell, score_columns
from tasks.image_scores.ready import StoredScore
from tasks.images.prepare import PreparedImages
from tasks.sampling.draw import drawn_by
from tasks.sampling.shards import Shard
from tasks.storage.artifact import ArtifactRef

# The modules whose code makes a number what it is, from noise to score.
CODE = ("tasks.cells.embed", "tasks.cells.score")
JUDGES = ("tasks.image_scores.judge", "tasks.image_scores.mean")
OWN = "checkpoint"  # the noise schedule that is not overridden


@dataclass(frozen=True)
class GridProtocol:
    """What all scores of a grid have to be compared at, and what people call it.

    Attributes:
        extractor: What takes the features.
        images: The real images.
        features: Of these.
        dataset, split: Their names.
        n_images: Generated ones, of each cell.
        shard_size: Of these, in a unit of work.
        image_scores: What judges the images one by one.
    """

    extractor: StoredExtractor
    images: PreparedImages
    features: FeatureShard
    dataset: str
    split: str
    n_images: int
    shard_size: int
    image_scores: tuple[StoredScore, ...] = ()


def cell_digest(cell: GridCell, checkpoint: ArtifactRef, protocol: GridProtocol) -> str:
    """Returns the identity of a row: the cell, its checkpoint, and the protocol it is scored by.

    Another protocol is another row; what people call the data set plays no part.
    """
    scored_by = [protocol.extractor.artifact, protocol.images.artifact]
    scored_by += sorted(score.artifact for score in protocol.image_scores)
    return digest(cell, checkpoint, [*scored_by, protocol.n_images, protocol.shard_size])


def row_of(
    cell: GridCell,
    checkpoint: CheckpointRecord,
    protocol: GridProtocol,
    scored: ScoredCell,
    classes: ClassScores,
    shards: Sequence[Shard],
    loras: Sequence[StoredLora] = (),
    judged: Mapping[str, JudgedCell] | None = None,
    floor: CellScore | None = None,
) -> CellRow:
    """Puts together a cell's row from the records of its tasks; the scores' fields are columns.

    `judged` has the cell by each score of images, by column; `floor` is of held-out real images.
    """
    seconds = float(sum(shard.seconds for shard in shards))
    record = protocol_record(cell, protocol, scored)
    return CellRow(
        cell_digest=cell_digest(cell, checkpoint.ref, protocol),
        checkpoint_digest=checkpoint.ref.artifact,
        weights_digest=checkpoint.weights_digest,
        reference_digest=protocol.images.artifact,
        extractor_digest=protocol.extractor.artifact,
        code_digest=digest([code_digest(module) for module in _code_of(cell, protocol)]),
        checkpoint=printable(checkpoint.name),
        dataset=protocol.dataset,
        split=protocol.split,
        extractor=protocol.extractor.name,
        resize=protocol.extractor.resize or protocol.images.resize,
        data_resize=protocol.images.resize,
        extractor_weights_digest=protocol.features.record.extractor_weights_digest,
        layer=protocol.features.record.layer,
        native_size=protocol.features.size,
        statistics_digest=scored.statistics_digest,
        protocol=record.to_json(),
        training_step=checkpoint.training_step,
        weights=checkpoint.weights,
        **vars(settings_of(cell, checkpoint.n_train, checkpoint.ref, loras)),
        steps=cell.sampler.steps,
        prediction_type=cell.sampler.prediction_type,
        noise_schedule=cell.noise.kind if cell.noise else OWN,
        overrides=overrides(cell, checkpoint),
        prompts_digest=cell.prompts,
        guidance_scale=cell.sampler.guidance_scale,
        guidance_interval=interval_text(cell.sampler.guidance_interval),
        guidance_channels=cell.sampler.guidance_channels,
        guide=printable(checkpoint.guide) if cell.sampler.guide else None,
        guide_digest=cell.sampler.guide,
        seed=cell.seed,
        shard_size=protocol.shard_size,
        resolution=checkpoint.resolution,
        **vars(scored.score),
        **vars(scored.further),
        **vars(classes),
        **score_columns(protocol.image_scores, judged or {}),
        floor=floor_text(floor),
        nfe=shards[0].nfe,
        sample_seconds=seconds,
        images_per_second=protocol.n_images / seconds,
        device=one_device(shards),
        dtype=cell.dtype,
        images_at_once=one_batch(shards) if cell.card else None,
        compiled=cell.card.compiled if cell.card else None,
        image_shards=[shard.artifact for shard in shards],
        created_at=scored.created_at,
    )


def _code_of(cell: GridCell, protocol: GridProtocol) -> tuple[str, ...]:
    """The modules whose code makes a row's numbers what they are."""
    return (drawn_by(cell), *CODE, *(JUDGES if protocol.image_scores else ()))


def require_own_device(cell: GridCell, device: str) -> None:
    """Makes sure, before any of a cell's images is drawn, that it is done on the kind of device
    that it is of: with what the store has of it, they would be of two.

    Raises:
        ValueError: If not.
    """
    own = cell.card.kind if cell.card else None
    if own != card_kind(device):
        raise ValueError(
            f"{cell.label} is a cell of {f'a {own} card' if own else 'a CPU'} and device is "
            f"{device!r}, which rounds otherwise; draw all of a cell on one kind of device"
        )


def one_device(shards: Sequence[Shard]) -> str:
    """Returns the kind of device that drew a cell's images.

    Raises:
        ValueError: If they are of several.
    """
    kinds = sorted({shard.device for shard in shards})
    if len(kinds) > 1:
        raise ValueError(
            f"some images were drawn on {' and others on '.join(kinds)}, which round otherwise; "
            "draw all of a cell on one kind of device"
        )
    return kinds[0]


def one_batch(shards: Sequence[Shard]) -> int:
    """Returns how many of a cell's images a card drew at once.

    Raises:
        ValueError: If memory ran out between its shards: bits depend on the batch, and a cell has
            one.
    """
    sizes = sorted({shard.batch for shard in shards})
    if len(sizes) > 1:
        raise ValueError(
            f"memory ran out on the way, so that some images were drawn {sizes[-1]} at once and "
            f"others {sizes[0]}, which gives other bits; run the grid with --batch-size {sizes[0]}"
        )
    return sizes[0]


def protocol_record(cell: GridCell, protocol: GridProtocol, scored: ScoredCell) -> Protocol:
    """Returns all that a cell's score has to be compared at."""
    has_images = protocol.features.kind != STATISTICS
    return Protocol(
        features=protocol.features.record,
        native_size=protocol.features.size,
        reference_native_size=protocol.features.size if has_images else None,
        data_resize=protocol.images.resize,
        n_images=scored.score.n_images,
        n_reference=scored.score.n_reference,
        shard_size=protocol.shard_size,
        reference_digest=protocol.images.artifact if has_images else None,
        reference=protocol.dataset,
        split=protocol.split,
        statistics_digest=scored.statistics_digest,
        sampler={
            **said_by(cell.sampler),
            "dtype": cell.dtype,
            **({"card": asdict(cell.card)} if cell.card else {}),
        },
        seed=cell.seed,
        versions=protocol.features.versions | scored.versions,
    )


def overrides(cell: GridCell, checkpoint: CheckpointRecord) -> str:
    """Says in which settings a cell departs from its checkpoint's own; empty if in none."""
    departures = []
    if cell.noise:
        departures.append(f"noise schedule {cell.noise.kind}, not the checkpoint's own")
    if cell.sampler.prediction_type != checkpoint.prediction_type:
        departures.append(
            f"prediction type {cell.sampler.prediction_type}, not the checkpoint's "
            f"{checkpoint.prediction_type}"
        )
    return "; ".join(departures)
