"""What the flow `checkpoint-watch` is asked: where to look, and what is done with what is new."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ddim_core.common.checks import require_at_most
from flows.requests.flat import Given, build, parameters
from flows.requests.grid import GridRequest
from flows.requests.images import PREVIOUS, ImageChoice, Machine, ScoreChoice
from flows.requests.lora_score import LoraScoreRequest
from flows.requests.models import CheckpointChoice
from flows.requests.tuning import TuneRequest

MOST_ATTEMPTS = 1000
SHARED = {field.name for group in (CheckpointChoice, ImageChoice, ScoreChoice, Machine)
          for field in fields(group)} - {"matrix_images"}  # fmt: skip
"""Parameters of a grid that its checkpoint's tuning has too, with the same meaning."""
RECORDS: dict[str, Any] = {
    "fid-grid": GridRequest, "tune": TuneRequest, "lora-score": LoraScoreRequest,
}  # fmt: skip
OF = ("checkpoint", "loras")  # parameters that say of what; the watch gives them


@dataclass(frozen=True)
class Job:
    """What is done once with a new checkpoint, or with a folder that has a new LoRA.

    Attributes:
        flow: `fid-grid`, `tune` or `lora-score`; its deployment is named alike.
        parameters: What it is given.
    """

    flow: str
    parameters: Given

    @property
    def name(self) -> str:
        """For people: of the checkpoint, or of the LoRAs' file or folder."""
        return Path(self.parameters.get("checkpoint") or self.parameters["loras"][0]).name

    @cached_property
    def request(self) -> GridRequest | TuneRequest | LoraScoreRequest:
        """What they ask for.

        Raises:
            ValueError: If they cannot be, with this checkpoint.
        """
        found: GridRequest | TuneRequest | LoraScoreRequest = build(
            RECORDS[self.flow], self.parameters
        )
        return found


@dataclass(frozen=True)
class Watch:
    """The flow's parameters; what they mean is said there."""

    sources: list[str] = field(default_factory=list)
    grid: Given = field(default_factory=dict)
    settle_seconds: float = 5.0
    attempts: int = 3
    here: bool = False
    tune: Given | None = None
    lora: Given | None = None

    def check(self) -> None:
        """Makes sure that they can be.

        Raises:
            ValueError: If `grid`, `tune` or `lora` holds what its flow does not take, `lora` stands
                beside one of the others, or a number is out of bounds.
        """
        if self.lora is not None and (self.grid or self.tune is not None):
            raise ValueError("lora scores LoRAs, and grid and tune checkpoints; give one of them")
        for flow, given in zip(RECORDS, (self.grid, self.tune or {}, self.lora or {}), strict=True):
            known = [p.name for p in parameters(RECORDS[flow]) if p.name not in OF]
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(
                    f"{flow} takes no {', '.join(unknown)}; it takes {', '.join(known)}"
                )
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1")
        require_at_most("attempts", self.attempts, MOST_ATTEMPTS)
        if not 0.0 <= self.settle_seconds <= 3600.0:
            raise ValueError(f"settle_seconds is {self.settle_seconds}; it must lie in 0..3600")

    def jobs(self, checkpoint: Path) -> list[Job]:
        """What is done with a checkpoint: its grid, and where that is asked for its tuning, of the
        same model, images and scores if nothing else is said, which looks at the lists of the
        checkpoint before."""
        if self.lora is not None:
            return [Job("lora-score", self.lora | {"loras": [str(self.loras(checkpoint))]})]
        of = {"checkpoint": str(checkpoint)}
        jobs = [Job("fid-grid", self.grid | of)]
        if self.tune is not None:
            shared = {name: value for name, value in self.grid.items() if name in SHARED}
            jobs.append(Job("tune", shared | {"known": [PREVIOUS]} | self.tune | of))
        return jobs

    def loras(self, file: Path) -> Path:
        """What is scored where a LoRA file is new: the folder that is watched, with all of its
        epochs; or the file, where it is watched itself."""
        watched = {Path(source).expanduser().absolute() for source in self.sources}
        return file.parent if file.parent.absolute() in watched else file

    @property
    def flow(self) -> str:
        """What is done first with what is new."""
        return "fid-grid" if self.lora is None else "lora-score"
