"""What a sampling task hands on besides a cell's images; light, so that pages import it alone."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.storage.artifact import ArtifactRef


@dataclass(frozen=True)
class Trajectories(ArtifactRef):
    """`x0` uint8 [n, k, height, width, channels] of n images at k network calls of the `calls`
    that an image took, evenly spread with both ends, and their timesteps `t` [k]."""

    calls: int
