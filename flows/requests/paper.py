"""What the paper's experiments can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import MOST_IMAGES, require_at_least
from ddim_core.diffusion.schedule import timesteps
from flows.requests.flat import Without
from flows.requests.grid import GridRequest
from flows.requests.images import ImageChoice, Machine, ScoreChoice, VerdictChoice
from flows.requests.models import CheckpointChoice, Toy, toy_spec
from flows.requests.samplers.choice import SamplerChoice

TABLE_1 = SamplerChoice(steps=(10, 20, 50, 100, 1000), n_images=1000, shard_size=250)
LEAST_RECONSTRUCTED = 2  # one image has no interval


@dataclass(frozen=True)
class ReconstructionChoice:
    """Table 2."""

    reconstruction_steps: Annotated[
        tuple[int, ...], Field(min_length=1, description="The S of table 2.")
    ] = (10, 20, 50, 100, 200, 500, 1000)
    n_reconstructed: Annotated[
        int,
        Field(
            ge=LEAST_RECONSTRUCTED,
            le=MOST_IMAGES,
            description="Real images to encode and decode: held-out ones where the data set has "
            "any, else of the reference.",
        ),
    ] = 256


@dataclass(frozen=True, kw_only=True)
class PaperRequest:
    """The experiments, on an unconditional checkpoint; sigma-hat is always a line of table 1.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    model: Annotated[
        CheckpointChoice,
        Without(
            (
                "configuration",
                "guide",
                "weights",
                "noise_schedule",
                "prediction_type",
                "lora",
                "prompts",
            )
        ),
    ]
    toy: Annotated[Toy, Without(("class_conditional", "objective"))]
    real: ImageChoice
    grid: Annotated[
        SamplerChoice,
        Without(("samplers", "sigma_hat", "clip", "guidance", "lora_scales", "dtype")),
    ] = TABLE_1
    reconstruction: ReconstructionChoice
    scores: Annotated[ScoreChoice, Without(("resize", "matrix_images", "image_scores"))]
    machine: Machine

    def __post_init__(self) -> None:
        for steps in self.reconstruction.reconstruction_steps:
            require_at_least("reconstruction_steps", steps, 1)
        grid = self.table1
        if not grid.model.checkpoint:
            real, toy = grid.real, grid.toy
            spec = toy_spec(real.dataset, real.resolution, 1, toy.train_steps, 0)
            self.require_steps(spec.noise.n_train)

    @property
    def table1(self) -> GridRequest:
        """The grid of table 1."""
        return GridRequest(
            model=self.model, toy=self.toy, real=self.real,
            grid=replace(self.grid, sigma_hat=True), scores=self.scores, machine=self.machine,
            verdict=VerdictChoice(),
        )  # fmt: skip

    def require_steps(self, n_train: int) -> None:
        """Makes sure that every S is one of a checkpoint with T = n_train."""
        for steps in [*self.grid.steps, *self.reconstruction.reconstruction_steps]:
            timesteps(n_train, steps, self.grid.spacing)

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        asked = self.reconstruction
        n, s = asked.n_reconstructed, ", ".join(map(str, asked.reconstruction_steps))
        return f"paper: {n} images encoded and decoded with S = {s}; {self.table1.line}"
