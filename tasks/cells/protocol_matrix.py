"""One cell's images through every extractor and resize at hand: how much the protocol moves FID."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.scores.cell_score import score_features
from tasks.cells.extractor_memory import extractor_in_memory
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class MatrixLine:
    """What one extractor says of the images; the counts are the same in all lines."""

    extractor: str
    resize: str
    n_features: int
    fid: float
    fid_low: float | None
    fid_high: float | None
    n_images: int | None
    n_reference: int | None


@dataclass(frozen=True)
class ProtocolMatrix:
    """The same images by several extractors."""

    lines: list[MatrixLine]


@cached_task
def protocol_matrix(
    shards: Sequence[ArtifactRef],
    reference: ArtifactRef,
    extractors: Sequence[ArtifactRef],
    n_images: int,
    execution: Execution,
) -> ProtocolMatrix:
    """Scores the same images, at most `n_images` a side, by each extractor."""
    torch.set_num_threads(execution.threads)
    generated = _first([store.get_arrays(shard)["images"] for shard in shards], n_images)
    real = _first([store.get_arrays(reference)["images"]], n_images)
    lines = []
    for ref in extractors:
        extractor = extractor_in_memory(ref, real.shape[1:])
        score = score_features([extractor(generated)], extractor(real))
        lines.append(
            MatrixLine(
                extractor=extractor.record.extractor,
                resize=extractor.record.resize,
                n_features=score.n_features,
                fid=score.fid,
                fid_low=score.fid_low,
                fid_high=score.fid_high,
                n_images=score.n_images,
                n_reference=score.n_reference,
            )
        )
    return ProtocolMatrix(lines)


def _first(shards: list[np.ndarray], n: int) -> np.ndarray:
    return np.concatenate(shards)[:n]
