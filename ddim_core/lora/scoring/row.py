"""A row of the table of scorecards: what a set of prompts shows at one scale of a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ddim_core.common.columns import Moment, column
from ddim_core.statistics.paired import PairedDifference


@dataclass(frozen=True)
class Score:
    """A measure with its 95 % interval, and its change against the base, paired; None where there
    are too few pictures for them."""

    value: float
    low: float | None
    high: float | None
    change: PairedDifference | None


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What was scored, and how: the first columns. How a LoRA that someone else trained was made is
    known in part; it has its file's name, and the epoch or step that this says."""

    row_digest: str
    lora_digest: str
    base_digest: str
    data_digest: str
    extractor_digest: str
    code_digest: str
    kind: str = column("parameter")
    base: str = column("parameter")
    data: str = column("parameter")
    prompts: str
    scale: float
    rank: int | None = column("parameter")
    alpha: float | None = column("parameter")
    training_steps: int | None = column("parameter")
    n_images: int
    n_prompts: int
    steps: int = column("parameter")
    guidance_scale: float = column("parameter")
    resolution: int = column("parameter")
    seed: int = column("parameter")
    extractor: str = column("parameter")
    sampler: str | None = column("parameter")
    lora: str | None = column("parameter")
    lora_number: int | None = column("parameter")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What it took, in seconds and bytes, and when it was done: the last columns."""

    seconds: float
    images_per_second: float
    peak_memory_bytes: int
    training_seconds: float | None
    training_peak_memory_bytes: int | None
    device: str
    created_at: Moment


@dataclass(frozen=True, kw_only=True)
class LoraRow(Cost, Scored):
    """A row; between its first and its last columns those of every measure, by name in `measures`,
    which has the ones that were taken."""

    measures: Mapping[str, Score]

    @property
    def digests(self) -> tuple[str, str, str]:
        """Of what it is about: the LoRA, its base, and the images that it is compared with."""
        return self.lora_digest, self.base_digest, self.data_digest
