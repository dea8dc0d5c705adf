"""A score of images in the store, and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from prefect import task

from ddim_core.devices.names import is_card
from ddim_core.image_scores.registry import SCORES, ImageScoreChoice
from ddim_core.image_scores.scorer import Scorer, ScoreRecord
from ddim_core.networks.building import LOADING
from tasks.storage import store
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class StoredScore(ArtifactRef):
    """A score of images: the artefact is the record of all that decides its numbers.

    Attributes:
        column: Its name in the table.
        needs_prompts: Whether it judges a picture by its prompt.
    """

    column: str
    needs_prompts: bool


@task(name="ready-image-score")
def ready_image_score(choice: ImageScoreChoice) -> StoredScore:
    """Puts a score's network with its tokenizer into the store; what lies on a hub is fetched once.

    It is opened too, so that a network that is something else is refused before anything is drawn.

    Raises:
        ValueError: If the network cannot be had, or is another one.
    """
    files = {name: path.read_bytes() for name, path in choice.files().items()}
    folder = store.put_files(files)
    del files
    with LOADING:
        choice.kind.open(store.get_folder(folder))
    record = store.put(choice.kind.record(folder.artifact).to_bytes(), "image score")
    return StoredScore(record.artifact, record.kind, choice.kind.column, choice.kind.needs_prompts)


def scorer_in_memory(ref: ArtifactRef, device: str) -> Scorer:
    """Returns a stored score, read once a process and device; all that are asked for stay."""
    with LOADING:
        return _opened(ref.artifact, device)


@cache
def _opened(artifact: str, device: str) -> Scorer:
    record = ScoreRecord.from_bytes(store.get(ArtifactRef(artifact, "image score")))
    kind = next(kind for kind in SCORES.values() if kind.column == record.score)
    scorer = kind.open(store.get_folder(ArtifactRef(record.weights_digest, "folder")))
    if is_card(device):
        scorer.to_card(device)
    return scorer
