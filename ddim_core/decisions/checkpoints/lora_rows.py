"""Rows of a pipeline with LoRA files over it, told as rows of one of these files.

Epochs of one LoRA differ in their file alone, as checkpoints do. So a row is told as if the file
that is judged were a checkpoint of its own: what judges checkpoints then judges LoRAs, at one
setting, on one base, in pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from ddim_core.common.digest import digest
from ddim_core.decisions.row import CellRow, loras_of

JUDGED = "LoRA"  # the name of the file that is judged, in the name of a cell
SUFFIX = ".safetensors"


def rows_of_lora(rows: Sequence[CellRow], lora: str) -> list[CellRow]:
    """Returns the rows that have a LoRA file over their pipeline, each told as its row.

    Args:
        rows: Of the table.
        lora: Digest of the file's bytes.
    """
    return [_told(row, lora) for row in rows if lora in digests_over(row)]


def rows_of_loras(rows: Sequence[CellRow], base: str) -> list[CellRow]:
    """Returns the rows of one base that have LoRA files over it, told once for each of these.

    Args:
        rows: Of the table.
        base: Content digest of the checkpoint below.
    """
    of_base = [row for row in rows if row.weights_digest == base]
    return [_told(row, lora) for row in of_base for lora in dict.fromkeys(digests_over(row))]


def digests_over(row: CellRow) -> list[str]:
    """Returns the digests of the LoRA files over a row's pipeline."""
    return [lora.digest for lora in loras_of(row)]


def loras_named(rows: Sequence[CellRow], name: str) -> set[str]:
    """Returns the digests of the LoRA files of a name, with its ending or without."""
    return {
        lora.digest
        for row in rows
        for lora in loras_of(row)
        if name in (lora.name, lora.name.removesuffix(SUFFIX))
    }


def judged_weights(base: str, lora: str) -> str:
    """Returns what stands for the weights of a LoRA file on a base."""
    return digest(base, lora)


def _told(row: CellRow, digest_of_it: str) -> CellRow:
    laid = loras_of(row)
    judged = next(lora for lora in laid if lora.digest == digest_of_it)
    shown = [
        (JUDGED, "", lora.scale) if lora.digest == digest_of_it else (lora.name, lora.digest,
                                                                      lora.scale)
        for lora in laid
    ]  # fmt: skip
    return replace(
        row,
        checkpoint=f"{judged.name.removesuffix(SUFFIX)} on {row.checkpoint}",
        weights_digest=judged_weights(row.weights_digest, digest_of_it),
        training_step=None,
        loras=json.dumps(shown),
    )
