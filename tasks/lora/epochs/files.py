"""LoRA files and folders of epochs in, the store's LoRAs in their order out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddim_core.common.digest import digest
from ddim_core.common.printable import printable
from ddim_core.safe_files.loras.files import (
    epoch_files,
    layout_of,
    lora_bytes,
    ranks_of,
    touches_texts,
)
from tasks.checkpoints.loras import KIND
from tasks.storage import store

BASE = "base"  # among the pictures of a page, the base's


@dataclass(frozen=True)
class StoredEpoch:
    """A LoRA file in the store.

    Attributes:
        artifact: Digest of its content, as it is laid over a pipeline.
        name: For people.
        number: Epoch or step, as its name says; None of the last.
        series: The training that it is from.
        with_texts: Whether it changes text encoders.
        rank: Of its layers; None where they differ.
        layout: Digest of its tensors' names, shapes and types.
    """

    artifact: str
    name: str
    number: int | None
    series: str
    with_texts: bool
    rank: int | None
    layout: str


def store_epochs(places: Sequence[str]) -> list[StoredEpoch]:
    """Brings LoRA files into the store, those of a folder in the order of their training.

    A file that is given twice, or saved under two names, as the last epoch often is, counts once.

    Args:
        places: Files and folders (`ddim_core.safe_files.loras.files`).

    Raises:
        ValueError: If one is not there, is damaged or a pickle, or holds no LoRA.
    """
    found: dict[str, StoredEpoch] = {}
    for place in places:
        for file in epoch_files(Path(place)):
            content = lora_bytes(file)
            ranks = ranks_of(content)
            one = StoredEpoch(
                store.put(content, KIND).artifact, printable(file.name), file.number, file.series,
                touches_texts(content), ranks.pop() if len(ranks) == 1 else None,
                layout_of(content),
            )  # fmt: skip
            found.setdefault(one.artifact, one)
    return list(found.values())


def digest_of_loras(places: Sequence[str]) -> str:
    """Returns a digest of all LoRAs of some places, whatever they are called.

    Raises:
        ValueError: As `store_epochs`.
    """
    return digest_of_epochs(store_epochs(places))


def digest_of_epochs(epochs: Sequence[StoredEpoch]) -> str:
    """Returns a digest of stored LoRAs, whatever they are called."""
    return digest(sorted(one.artifact for one in epochs))


def told_apart(epochs: Sequence[StoredEpoch]) -> list[StoredEpoch]:
    """Returns the same, those of one name, or of the base's among pictures, with the beginning of
    their digests in it."""
    names = [BASE, *(one.name for one in epochs)]
    return [
        StoredEpoch(**{**vars(one), "name": f"{one.name} {one.artifact[:6]}"})
        if names.count(one.name) > 1
        else one
        for one in epochs
    ]
