"""What a grid was asked for, checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from ddim_core.digest import digest, file_digest
from ddim_core.images import splits_of
from ddim_core.schedule import timesteps
from ddim_core.specs import (
    Execution,
    GridCell,
    SamplerSpec,
    Spacing,
    Variance,
    require_at_least,
    require_choice,
)
from flows.train_toy import toy_spec, training_split
from tasks.extractor import EXTRACTORS
from tasks.models import require_device

LEAST_IMAGES = 2  # one image has no covariance
NONE, PREVIOUS = "none", "previous"  # words for `against`; else it is a checkpoint
IN_MLFLOW = ("models:/", "runs:/")
# Parameters that say which checkpoint, where it is done, or what it is compared with.
NOT_OF_THE_GRID = frozenset(
    {"checkpoint", "dataset", "feature_weights", "batch_size", "threads", "device", "train_steps",
     "against", "at", "margin", "gate", "promote"}
)  # fmt: skip


@dataclass(frozen=True)
class GridRequest:
    """The parameters of `fid_grid`, as they were given; see there for their meaning.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    checkpoint: str
    dataset: str
    split: str
    resolution: int | None
    steps: list[int]
    etas: list[float]
    sigma_hat: bool
    spacing: Spacing
    clip: bool
    guidance: list[float]
    n_images: int
    features: str
    feature_weights: str
    seed: int
    shard_size: int
    batch_size: int
    threads: int
    device: str
    train_steps: int
    class_conditional: bool
    against: str
    at: str
    margin: float
    gate: bool
    promote: str

    def __post_init__(self) -> None:
        require_at_least("n_images", self.n_images, LEAST_IMAGES)
        require_at_least("shard_size", self.shard_size, LEAST_IMAGES)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must lie in 0..2^63 - 1")
        require_device(self.device)
        require_choice("features", self.features, EXTRACTORS)
        if self.feature_weights and not Path(self.feature_weights).is_file():
            raise ValueError(f"there is no file of feature_weights {self.feature_weights!r}")
        if not self.steps:
            raise ValueError("steps is empty; give at least one number of steps, such as 10")
        if not self.etas and not self.sigma_hat:
            raise ValueError("etas is empty and sigma_hat is off; give at least one eta in [0, 1]")
        if not self.guidance:
            raise ValueError("guidance is empty; 1 is no guidance")
        if not self.split:
            object.__setattr__(self, "split", training_split(self.dataset))
        require_choice("split", self.split, tuple(splits_of(self.dataset)))
        if self.checkpoint and not Path(self.checkpoint).is_dir():
            raise ValueError(
                f"there is no checkpoint folder {self.checkpoint!r}; give a diffusers pipeline "
                "folder, or leave it empty to train the toy model"
            )
        if not self.checkpoint:
            spec = toy_spec(self.dataset, self.resolution, 1, self.train_steps, self.seed)
            for cell in self.cells(spec.noise.n_train, "epsilon"):
                if not self.class_conditional and cell.sampler.guidance_scale != 1.0:
                    raise ValueError(
                        f"guidance is {cell.sampler.guidance_scale:g}, which needs a model that "
                        "knows classes; turn class_conditional on"
                    )
        else:
            self.cells(max(self.steps), "epsilon")  # all but S > T, which the checkpoint tells
        self.execution()
        self._check_verdict()

    def _check_verdict(self) -> None:
        if not 0.0 <= self.margin < math.inf:
            raise ValueError(f"margin is {self.margin}; it must be at least 0")
        if self.gate and self.against == NONE:
            raise ValueError("gate is on and against is 'none'; a gate needs a checkpoint to beat")
        named = self.against not in (PREVIOUS, NONE) and not self.against.startswith(IN_MLFLOW)
        if named and not Path(self.against).exists():
            raise ValueError(
                f"there is no checkpoint {self.against!r} to compare with; give a folder, "
                f"models:/NAME@ALIAS, {PREVIOUS} or {NONE}"
            )
        steps, _, line = (part.strip() for part in self.at.partition(","))
        lines = [f"{float(eta):g}" for eta in self.etas] + ["sigma-hat"] * self.sigma_hat
        if self.at and (steps not in map(str, self.steps) or line not in lines):
            raise ValueError(
                f"at is {self.at!r}, which is no cell of the grid; give S and eta of one, such as "
                f"{self.steps[0]},{lines[0]}"
            )

    def identity(self, content: str) -> str:
        """Returns the digest of what is scored, whatever the checkpoint and wherever it is done.

        Args:
            content: The data set's content digest (`tasks.data.content_of`).
        """
        asked = {k: v for k, v in asdict(self).items() if k not in NOT_OF_THE_GRID}
        weights = file_digest(Path(self.feature_weights)) if self.feature_weights else ""
        return digest(asked, content, weights)

    def cells(self, n_train: int, prediction_type: str) -> list[GridCell]:
        """Returns the grid's cells, by row and then by S, for a checkpoint with T = n_train.

        Raises:
            ValueError: If a setting cannot be, such as S = 0, S > T or eta = 2.
        """
        rows: list[tuple[Variance, float]] = [("eta", eta) for eta in dict.fromkeys(self.etas)]
        rows += [("sigma_hat", 1.0)] if self.sigma_hat else []
        cells = []
        for (variance, eta), scale in product(rows, dict.fromkeys(map(float, self.guidance))):
            for steps in dict.fromkeys(self.steps):
                sampler = SamplerSpec(
                    steps=steps,
                    eta=eta,
                    variance=variance,
                    spacing=self.spacing,
                    prediction_type=prediction_type,  # type: ignore[arg-type]  # checked there
                    clip=self.clip or variance == "sigma_hat",  # as the official code
                    guidance_scale=scale,
                )
                timesteps(n_train, steps, self.spacing)
                cells.append(GridCell(sampler, seed=self.seed))
        return cells

    def shards(self) -> list[tuple[int, int]]:
        """Returns the image index ranges [start, stop) that cover n_images."""
        starts = range(0, self.n_images, self.shard_size)
        return [(start, min(start + self.shard_size, self.n_images)) for start in starts]

    def execution(self) -> Execution:
        return Execution(self.device, self.batch_size, self.threads)

    def held_out_split(self) -> str | None:
        """Returns the data set's part that is neither trained on nor, by default, compared to."""
        if self.split == "all":
            return None
        there_is = splits_of(self.dataset)
        others = (s for s in ("test", "val", "validation") if s in there_is and s != self.split)
        return next(others, None)
