"""What is written for a cell, whichever kind it is of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from ddim_core.shipping.readme import Plain
from ddim_core.shipping.script import Shared
from tasks.sampling.guidance import guided_where
from tasks.shipping.cell import ScoredCell


@dataclass(frozen=True)
class ShippedLora:
    """A LoRA file as it is handed over.

    Attributes:
        file: Its name beside the script.
        digest: Sha256 of its bytes.
        scale: How much of it counts.
    """

    file: str
    digest: str
    scale: float


@dataclass(frozen=True, eq=False)
class Ready:
    """What is to be written.

    Attributes:
        script: The text of sample.py.
        scheduler: The scheduler of diffusers that does it; None where there is none.
        conditions: What the images are drawn for, by name; empty where nothing is told.
        plain: How plain diffusers draws with it.
        loras: The LoRA files over its pipeline.
    """

    script: str
    scheduler: Any
    conditions: Mapping[str, Tensor]
    plain: Plain
    loras: tuple[ShippedLora, ...] = ()

    def conditions_file(self) -> bytes:
        """Returns the conditions as a safetensors file."""
        whole = {name: value.contiguous().clone() for name, value in self.conditions.items()}
        return safetensors.torch.save(whole)


def guided_at(scored: ScoredCell, timesteps: Sequence[float]) -> tuple[bool, ...]:
    """Returns at which timesteps there is guidance; empty where there is at all.

    Raises:
        ValueError: If a cell is guided on some channels alone, or by another network.
    """
    spec = scored.cell.sampler
    if (spec.guidance_channels, spec.guide) != (None, None):
        raise ValueError(
            f"the cell {spec.line} is guided on some channels alone, or by another network, which "
            "is not shipped; ship a cell that is guided as usual, or not"
        )
    inside = guided_where(scored.cell, scored.checkpoint)
    return tuple(map(inside, timesteps)) if inside else ()


def notes_on_guided(scored: ScoredCell, guided: Sequence[bool]) -> list[str]:
    """Says where a cell is guided, if that is not at every step."""
    interval = scored.cell.sampler.guidance_interval
    if interval is None:
        return []
    at = ", ".join(str(i) for i, inside in enumerate(guided, 1) if inside)
    return [
        f"Guidance is at noise levels from {interval[0]:g} to {interval[1]:g} alone, at step {at} "
        f"of {len(guided)}; at the others the network is asked once, for what is to be drawn."
    ]


def shared_by(scored: ScoredCell, folder: Path, shape: tuple[int, ...], batch: int) -> Shared:
    """Returns what every script is told of a cell.

    Args:
        scored: The cell.
        folder: Where its checkpoint lies.
        shape: Of one image's x_T.
        batch: Images at once.
    """
    return Shared(
        cell=scored.row.cell_digest,
        checkpoint=str(folder),
        seed=scored.cell.seed,
        shape=tuple(shape),
        n_images=len(scored.images),
        batch=batch,
        dtype=scored.cell.dtype,
        device=scored.row.device,
    )
