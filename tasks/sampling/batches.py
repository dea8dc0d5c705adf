"""Batches of image indices, and what is done where memory does not hold one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ddim_core.common.digest import digest
from ddim_core.devices.names import kind_of
from ddim_core.diffusion.specs import Execution, GridCell
from tasks.sampling.shards import Images, Shard, extended
from tasks.storage.store import ArtifactRef

logger = logging.getLogger(__name__)
_fits: dict[str, int] = {}  # of cells that ran out of memory in this process: the batch that fits


@dataclass(frozen=True)
class Batch:
    """Images of one network call.

    Attributes:
        keys: Their indices, and on a card what fills the batch up.
        wanted: Which of them are.
    """

    keys: list[int]
    wanted: slice


def batches(indices: Sequence[int], size: int, on_card: bool, n_before: int = 0) -> Iterator[Batch]:
    """Yields indices in batches.

    On a card a batch is filled up, and an image has the place in it that it would have if the
    shard's images before it were drawn in the same run: there bits may depend on the size of a
    batch and on the place in it. A network on a CPU sees to that itself.

    Args:
        indices: Of a shard's images, in order.
        size: Images of a batch.
        on_card: Whether they are drawn on a card.
        n_before: Images of the shard before them.
    """
    if not on_card:
        for first in range(0, len(indices), size):
            keys = list(indices[first : first + size])
            yield Batch(keys, slice(len(keys)))
        return
    n = len(indices)
    for first in range(-(n_before % size), n, size):
        keys = [indices[row if 0 <= row < n else 0] for row in range(first, first + size)]
        yield Batch(keys, slice(max(-first, 0), min(n - first, size)))


def shard_of(
    name: str,
    cell: GridCell,
    checkpoint: ArtifactRef,
    start: int,
    stop: int,
    execution: Execution,
    size: int,
    draw: Callable[[range, int, int], Images],
) -> Shard:
    """Returns images start..stop-1 of a cell, stored; of these only what no other run has drawn.

    Args:
        name: The digest of all that decides the images, but for how many they are.
        cell, checkpoint, start, stop, execution: As of the task that draws them.
        size: Images at once.
        draw: Draws a range of indices, so many at once, after so many of the shard's.
    """
    return extended(
        name,
        start,
        stop,
        kind_of(execution.device),
        lambda indices, before: within_memory(
            cell, checkpoint, size, before, lambda n: draw(indices, n, indices.start - start)
        ),
    )


def within_memory(
    cell: GridCell, checkpoint: ArtifactRef, asked: int, before: int, draw: Callable[[int], Images]
) -> Images:
    """Draws a cell's images in the largest batch that a card's memory holds: of the size asked for,
    or halved until it fits, for all images of the cell that this process draws.

    Args:
        cell, checkpoint: What is drawn.
        asked: Images at once.
        before: How many at once the shard's images before them were drawn, which holds for these
            too; 0 if there are none.
        draw: Draws all images in batches of a size.

    Raises:
        MemoryError: If not even one image fits, or memory holds less than it did before.
    """
    if cell.card is None:
        return draw(asked)
    name = digest(cell, checkpoint)
    while True:
        size = before or min(asked, _fits.get(name, asked))
        try:
            return replace(draw(size), batch=size)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if before:
                raise MemoryError(
                    f"memory ran out for {cell.label} in batches of {size}, in which its first "
                    "images were drawn, and others would have other bits; free the card's memory"
                ) from error
            if size == 1:
                raise
            told = str(error).splitlines()[0]
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _fits[name] = min(_fits.get(name, size), size // 2)
        logger.warning(
            "memory ran out for %s in batches of %d (%s); they are drawn in batches of %d: "
            "--batch-size %d asks for that at once",
            cell.label, size, told, size // 2, size // 2,
        )  # fmt: skip
