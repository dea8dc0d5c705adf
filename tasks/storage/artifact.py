"""What names a stored artefact, or a page with its figures; `tasks.storage.store` keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ArtifactRef:
    """A stored artefact. What a task knows of one besides (counts, seconds) stands in a record of
    its own that is a reference as well: `class Shard(ArtifactRef)`.

    Attributes:
        artifact: Its sha256, by which alone it counts in cache keys.
        kind: For people.
    """

    artifact: str
    kind: str


@dataclass(frozen=True)
class Report:
    """A rendered page with its figures (PNG) by name, and what it reads from the numbers."""

    page: ArtifactRef
    figures: dict[str, ArtifactRef]
    reading: list[str]


def references(value: Any) -> Iterator[ArtifactRef]:
    """Yields every artefact reference inside a task's result as JSON has it."""
    if isinstance(value, dict):
        if "artifact" in value and "kind" in value:
            yield ArtifactRef(artifact=str(value["artifact"]), kind=str(value["kind"]))
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@dataclass(frozen=True)
class Trajectories(ArtifactRef):
    """`x0` uint8 [n, k, height, width, channels] of n images at k network calls of the `calls`
    that an image took, evenly spread with both ends, and their timesteps `t` [k]."""

    calls: int
