"""What the flow of points in the plane can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import LEAST_SEED_TOO_LARGE, MOST_STEPS, require_at_most
from ddim_core.diffusion.lint import by_steps, lint
from ddim_core.diffusion.schedule import NoiseSchedule, timesteps
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.points.specs import PointSet, PointTrainSpec
from flows.requests.flat import Without
from flows.requests.images import Etas, Machine, SpacingChoice, Steps


@dataclass(frozen=True, kw_only=True)
class PointRequest:
    """The points.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    dataset: Annotated[
        PointSet,
        Field(description="swiss-roll, moons, circles, s-curve, checkerboard or gaussians."),
    ] = "swiss-roll"
    steps: Steps = (10, 20, 50, 100)
    etas: Etas = (0.0, 0.5, 1.0)
    spacing: SpacingChoice = "uniform"
    n_points: Annotated[
        int,
        Field(
            ge=1,
            le=10_000_000,
            description="Points per sample; Chamfer distances compare only at one number of them.",
        ),
    ] = 2048
    seed: Annotated[
        int, Field(ge=0, lt=LEAST_SEED_TOO_LARGE, description="Of the first training.")
    ] = 0
    train_seeds: Annotated[
        int, Field(ge=1, le=1000, description="Models to train, with the seeds from `seed` on.")
    ] = 1
    sampling_seeds: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Samples per model and setting, each compared to its own fresh points.",
        ),
    ] = 5
    train_steps: Annotated[
        int, Field(ge=1, le=MOST_STEPS, description="Training steps of a model.")
    ] = 5000
    machine: Annotated[Machine, Without(("batch_size", "compile", "device"))]

    def __post_init__(self) -> None:
        if not self.etas:
            raise ValueError("etas is empty; give at least one number")
        require_at_most("seed", self.seed, LEAST_SEED_TOO_LARGE - self.train_seeds)
        n_train = self.trainings()[0].noise.n_train
        for sampler in self.samplers():
            timesteps(n_train, sampler.steps, sampler.spacing)

    def trainings(self) -> list[PointTrainSpec]:
        """Returns how each model is trained; they differ in their seed."""
        seeds = range(self.seed, self.seed + self.train_seeds)
        return [PointTrainSpec(self.dataset, steps=self.train_steps, seed=s) for s in seeds]

    def samplers(self) -> list[SamplerSpec]:
        """Returns the sampler settings, by eta and then by S."""
        return [
            SamplerSpec(steps=steps, eta=eta, spacing=self.spacing)
            for eta in dict.fromkeys(self.etas)
            for steps in dict.fromkeys(self.steps)
        ]

    def findings(self) -> list[str]:
        """Says where the steps taken differ from those asked for."""
        schedule = NoiseSchedule.from_spec(self.trainings()[0].noise)
        return by_steps((sampler, lint(schedule, sampler)) for sampler in self.samplers())

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        return (
            f"swiss-roll: {self.train_seeds} models of {self.dataset}, {self.train_steps} steps "
            f"each, and {len(self.samplers())} settings with {self.sampling_seeds} samples each"
        )
