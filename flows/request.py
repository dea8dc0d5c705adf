"""What a grid was asked for, checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

from ddim_core.digest import digest, file_digest
from ddim_core.emoji import rgb_of
from ddim_core.extractors import ExtractorChoice
from ddim_core.images import splits_of
from ddim_core.redaction import redacted
from ddim_core.schedule import timesteps
from ddim_core.specs import (
    USUAL_ETAS,
    Execution,
    GridCell,
    ImageSpec,
    NoiseSpec,
    PredictionType,
    SamplerSpec,
    Spacing,
    Variance,
    Weights,
    require_at_least,
    require_choice,
)
from flows.runner_names import is_elsewhere, require_runner
from flows.toy import toy_resolution, toy_spec, training_split
from tasks.addresses import require_location
from tasks.device import require_device

SCHEDULES = ("linear", "quad", "cosine", "constant", "sigmoid", "jsd")
LEAST_IMAGES = 2  # one image has no covariance
NONE, PREVIOUS = "none", "previous"  # words for `against`; else it is a checkpoint
IN_MLFLOW = ("models:/", "runs:/")
# Parameters that say which checkpoint, where it is done, or what it is compared with.
NOT_OF_THE_GRID = frozenset(
    {"checkpoint", "dataset", "feature_weights", "batch_size", "threads", "device", "train_steps",
     "against", "at", "margin", "gate", "promote", "runner", "workers",
     "matrix_images"}
)  # fmt: skip


@dataclass(frozen=True)
class GridRequest:
    """The parameters of `fid_grid`, as they were given; see there for their meaning.

    Where sigma_hat is None it is settled here: on with the usual etas, off with others.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    checkpoint: str
    dataset: str
    split: str
    resolution: int | None
    steps: list[int]
    etas: list[float]
    sigma_hat: bool | None
    spacing: Spacing
    clip: bool
    guidance: list[float]
    n_images: int
    features: str
    feature_weights: str
    resize: str
    matrix_images: int
    seed: int
    shard_size: int
    batch_size: int
    threads: int
    device: str
    train_steps: int
    class_conditional: bool
    weights: Weights
    noise_schedule: str
    prediction_type: str
    prompts: str
    max_broken: int
    background: str
    skin_tones: bool
    against: str
    at: str
    margin: float
    gate: bool
    promote: str
    runner: str
    workers: int | None

    def __post_init__(self) -> None:
        require_at_least("n_images", self.n_images, LEAST_IMAGES)
        require_at_least("shard_size", self.shard_size, LEAST_IMAGES)
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed is {self.seed}; it must lie in 0..2^63 - 1")
        require_runner(self.runner, self.workers)
        if not is_elsewhere(self.runner):
            require_device(self.device)
        self.extractor()
        if self.matrix_images:
            require_at_least("matrix_images", self.matrix_images, LEAST_IMAGES)
        if not self.steps:
            raise ValueError("steps is empty; give at least one number of steps, such as 10")
        if self.sigma_hat is None:
            object.__setattr__(self, "sigma_hat", list(map(float, self.etas)) == USUAL_ETAS)
        if not self.etas and not self.sigma_hat:
            raise ValueError("etas is empty and sigma_hat is off; give at least one eta in [0, 1]")
        if not self.guidance:
            raise ValueError("guidance is empty; 1 is no guidance")
        if not self.split:
            object.__setattr__(self, "split", training_split(self.dataset))
        require_choice("split", self.split, tuple(splits_of(self.dataset)))
        if self.checkpoint:
            require_location(self.checkpoint)
        elif self.prompts:
            raise ValueError(f"prompts is {self.prompts!r}; the toy model is told of no text")
        require_choice("weights", self.weights, get_args(Weights))
        require_choice("noise_schedule", self.noise_schedule, ("", *SCHEDULES))
        require_choice("prediction_type", self.prediction_type, ("", *get_args(PredictionType)))
        rgb_of(self.images().background)
        if not self.checkpoint:
            resolution = toy_resolution(self.dataset, self.resolution)
            object.__setattr__(self, "resolution", resolution)
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
        if self.against not in (PREVIOUS, NONE):
            require_location(self.against)
        steps, _, line = (part.strip() for part in self.at.partition(","))
        lines = [f"{float(eta):g}" for eta in self.etas]
        lines += ["sigma-hat"] if self.sigma_hat else []
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
        weights = Path(self.feature_weights)  # a file, a folder or a hub id
        told = file_digest(weights) if weights.is_file() else self.feature_weights
        return digest(asked, content, told)

    def cells(
        self,
        n_train: int,
        prediction_type: str,
        is_latent: bool = False,
        prompts: str | None = None,
    ) -> list[GridCell]:
        """Returns the grid's cells, by row and then by S, for a checkpoint with T = n_train.

        Args:
            n_train: T of the checkpoint.
            prediction_type: The checkpoint's own, used where the request has no other.
            is_latent: It draws latents, which have no range to clip to.
            prompts: Digest of its stored prompts, if it is told of a text.

        Raises:
            ValueError: If a setting cannot be, such as S = 0, S > T or eta = 2.
        """
        if is_latent and self.clip:
            raise ValueError("clip is on, and the checkpoint draws latents; clipping is for pixels")
        kind: Any = self.noise_schedule  # checked above
        noise = NoiseSpec(kind, n_train) if kind else None
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
                    prediction_type=self.prediction_type or prediction_type,  # type: ignore[arg-type]  # checked there
                    # sigma_hat clips as the official code does
                    clip=self.clip or (variance == "sigma_hat" and not is_latent),
                    guidance_scale=scale,
                )
                timesteps(n_train, steps, self.spacing)
                cells.append(GridCell(sampler, noise, self.seed, prompts=prompts))
        return cells

    def shards(self) -> list[tuple[int, int]]:
        """Returns the image index ranges [start, stop) that cover n_images."""
        starts = range(0, self.n_images, self.shard_size)
        return [(start, min(start + self.shard_size, self.n_images)) for start in starts]

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        n_lines = len(dict.fromkeys(self.etas)) + bool(self.sigma_hat)
        n_cells = n_lines * len(dict.fromkeys(self.guidance)) * len(dict.fromkeys(self.steps))
        of = redacted(self.checkpoint) or "the toy model that is trained first"
        return (
            f"grid: {n_cells} cells of {self.n_images} images, by {of}, against "
            f"{self.dataset} {self.split}, {self.extractor().label} features"
        )

    def extractor(self) -> ExtractorChoice:
        return ExtractorChoice(self.features, self.feature_weights, self.resize)

    def execution(self) -> Execution:
        return Execution(self.device, self.batch_size, self.threads)

    def images(self) -> ImageSpec:
        return ImageSpec(self.max_broken, self.background, self.skin_tones)

    def held_out_split(self) -> str | None:
        """Returns the data set's part that is neither trained on nor, by default, compared to."""
        if self.split == "all":
            return None
        there_is = splits_of(self.dataset)
        others = (s for s in ("test", "val", "validation") if s in there_is and s != self.split)
        return next(others, None)
