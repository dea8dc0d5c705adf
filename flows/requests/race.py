"""What the race over a grid's cells can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import MOST_IMAGES
from ddim_core.decisions.allocation import Goal
from flows.requests.flat import Without
from flows.requests.grid import CheckpointChoice, GridRequest
from flows.requests.images import NONE, ImageChoice, Machine, ScoreChoice, VerdictChoice
from flows.requests.samplers import SamplerChoice
from flows.requests.toy import Toy

RACED = SamplerChoice(shard_size=128)
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


def usual_budget(k: int, first: int, most: int) -> int:
    """Half of what a full grid of k cells draws, or the first round if that takes more."""
    return max(k * most // 2, k * first)


def first_images(n_features: int, shard_size: int, most: int) -> int:
    """Images of a first round: whole shards, and enough to correct FID for their number."""
    wanted = max(LEAST_FIRST, int(1.5 * n_features))
    return min(-(-wanted // shard_size) * shard_size, most)
