"""What a race can be asked for: over the cells of one grid, or of the grids of several
checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import MOST_IMAGES, require_at_least
from ddim_core.common.redaction import redacted
from ddim_core.decisions.race import Goal
from flows.requests.flat import Option, Without, command_line
from flows.requests.grid import GridRequest
from flows.requests.images import NONE, ImageChoice, Machine, ScoreChoice, VerdictChoice
from flows.requests.models import CheckpointChoice, Toy
from flows.requests.samplers.choice import SamplerChoice
from tasks.checkpoints.addresses import a_place_of

RACED = SamplerChoice(shard_size=128)
LEAST_RANKED = 4  # images a cell: of fewer no groups can be left out
LEAST_FIRST = 128  # images of a first round: fewer make groups of the jackknife below six


@dataclass(frozen=True)
class RaceChoice:
    """Until decided."""

    confidence: Annotated[
        float,
        Field(gt=0, lt=1, description="Of the whole decision, however many rounds it takes."),
    ] = 0.95
    budget: Annotated[
        int | None,
        Field(
            ge=1,
            le=100 * MOST_IMAGES,
            description="Most images of all cells; empty is half of the full grid's.",
        ),
    ] = None
    goal: Annotated[
        Goal,
        Field(
            description="best, or front (of FID against network calls). `best` is the cell of the "
            "lowest FID, `front` the Pareto front."
        ),
    ] = "best"


UntilDecided = Annotated[bool, Field(description="More images only for cells whose rank is open.")]


@dataclass(frozen=True)
class SnapshotChoice:
    """The checkpoint; several are compared, each at its own best setting."""

    checkpoints: Annotated[
        tuple[str, ...],
        Field(
            description="Folder, file, hub id or MLflow address; several (repeat it), or a folder "
            "or pattern of snapshots, are compared; `ddim grid` without any trains the toy model. "
            "All cells of all snapshots are ranked together, each snapshot at its own best "
            "setting. docs/checkpoints.md has all forms."
        ),
        Option("--checkpoint", repeated=True),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class RaceRequest:
    """A race. Each cell gets at most n_images, and a first round of a multiple of shard_size.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    race: RaceChoice
    model: CheckpointChoice
    toy: Toy
    real: ImageChoice
    grid: SamplerChoice = RACED
    scores: Annotated[ScoreChoice, Without(("matrix_images",))]
    verdict: Annotated[VerdictChoice, Without(("against", "at", "margin", "gate", "promote"))]
    machine: Machine

    def __post_init__(self) -> None:
        grid, budget = self.whole, self.race.budget
        k = len(grid.cells(grid.expected))
        least = k * first_images(1, grid.grid.shard_size, grid.grid.n_images)
        if budget is not None and budget < least:
            raise ValueError(
                f"budget is {budget} images; the first round of {k} cells takes at least {least}"
            )

    @property
    def whole(self) -> GridRequest:
        """The grid whose cells race."""
        return GridRequest(
            model=self.model, toy=self.toy, real=self.real, grid=self.grid, scores=self.scores,
            machine=self.machine, verdict=replace(self.verdict, against=NONE),
        )  # fmt: skip

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        return f"until decided, {self.whole.line}"


@dataclass(frozen=True, kw_only=True)
class SnapshotRequest:
    """Several checkpoints, all cells of which are ranked together.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    of: SnapshotChoice
    model: Annotated[CheckpointChoice, Without(("checkpoint",))]
    real: ImageChoice
    grid: SamplerChoice = RACED
    scores: Annotated[ScoreChoice, Without(("matrix_images",))]
    verdict: Annotated[
        VerdictChoice, Without(("against", "at", "margin", "twins", "gate", "promote"))
    ]
    race: Annotated[RaceChoice, Without(("goal",))]
    until_decided: UntilDecided = True
    machine: Machine

    def __post_init__(self) -> None:
        if not any(self.of.checkpoints):
            raise ValueError("checkpoints is empty; give the snapshots, or a folder of them")
        require_at_least("n_images", self.grid.n_images, LEAST_RANKED)
        if not self.until_decided and self.race.budget is not None:
            raise ValueError(
                f"budget is {self.race.budget} and until_decided is off, where every cell gets "
                "n_images; leave one of them out"
            )
        for location in self.of.checkpoints:
            place = a_place_of(location)
            # A folder's snapshots, which may be files, are looked at once they are told.
            self._grid(
                replace(self.model, configuration="") if Path(place).is_dir() else self.model, place
            )

    def grid_of(self, checkpoint: str) -> GridRequest:
        """The grid of one of the snapshots.

        Raises:
            ValueError: If it cannot be.
        """
        return self._grid(self.model, checkpoint)

    def _grid(self, model: CheckpointChoice, checkpoint: str) -> GridRequest:
        return GridRequest(
            model=replace(model, checkpoint=checkpoint), toy=Toy(), real=self.real,
            grid=self.grid, scores=self.scores, machine=self.machine,
            verdict=replace(self.verdict, against=NONE),
        )  # fmt: skip

    @property
    def command(self) -> str:
        """The command that asks for it, whose usual shards are those of a grid where it is none of
        a race."""
        words = command_line(
            "grid", self, {"until_decided", "shard_size", *self.machine.undeciding}
        )
        usual, size = RACED if self.until_decided else SamplerChoice, self.grid.shard_size
        words += f" --shard-size {size}" if size != usual.shard_size else ""
        return words + " --until-decided" * self.until_decided

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        how = "until decided, " if self.until_decided else ""
        of = ", ".join(redacted(location) for location in self.of.checkpoints)
        return f"snapshots: {how}at most {self.grid.n_images} images a cell, of {of}"


def usual_budget(k: int, first: int, most: int) -> int:
    """Half of what a full grid of k cells draws, or the first round if that takes more."""
    return max(k * most // 2, k * first)


def first_images(n_features: int, shard_size: int, most: int) -> int:
    """Images of a first round: whole shards, and enough to correct FID for their number."""
    wanted = max(LEAST_FIRST, int(1.5 * n_features))
    return min(-(-wanted // shard_size) * shard_size, most)
