"""What `swiss_roll` was asked for, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from ddim_core.point_specs import PointSet, PointTrainSpec
from ddim_core.schedule import NoiseSchedule, timesteps
from ddim_core.schedule_lint import by_steps, lint
from ddim_core.specs import SamplerSpec, Spacing, require_at_least, require_choice
from flows.runner_names import require_runner


@dataclass(frozen=True)
class PointRequest:
    """The parameters of `swiss_roll`, as they were given; see there for their meaning.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    dataset: PointSet
    steps: list[int]
    etas: list[float]
    spacing: Spacing
    n_points: int
    seed: int
    train_seeds: int
    sampling_seeds: int
    train_steps: int
    threads: int
    runner: str
    workers: int | None

    def __post_init__(self) -> None:
        require_choice("dataset", self.dataset, get_args(PointSet))
        for name in ("n_points", "train_seeds", "sampling_seeds", "train_steps", "threads"):
            require_at_least(name, getattr(self, name), 1)
        require_at_least("seed", self.seed, 0)
        require_runner(self.runner, self.workers)
        for name in ("steps", "etas"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty; give at least one number")
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
            for eta in dict.fromkeys(map(float, self.etas))
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
