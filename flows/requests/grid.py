"""What a grid can be asked for, the race over its cells, and the paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field

from ddim_core.common.checks import require_at_least, require_choice
from ddim_core.common.digest import digest, file_digest
from ddim_core.common.redaction import redacted
from ddim_core.diffusion.schedule import timesteps
from ddim_core.diffusion.specs import (
    USUAL_ETAS,
    GridCell,
    NoiseSpec,
    PredictionType,
    SamplerSpec,
    Variance,
    Weights,
)
from ddim_core.features.registry import ExtractorChoice
from ddim_core.images.load import splits_of
from flows.requests.flat import Option, values
from flows.requests.images import Etas, ImageChoice, Machine, Seed, SpacingChoice, Steps
from flows.requests.toy import Toy, ToyRequest, toy_resolution, training_split
from tasks.checkpoints.addresses import require_location

SCHEDULES = ("linear", "quad", "cosine", "constant", "sigmoid", "jsd")
LEAST_IMAGES = 2  # one image has no covariance
# Parameters that say which checkpoint and data set, by their names and not their content.
NOT_SCORED = ("checkpoint", "dataset", "feature_weights", "train_steps", "matrix_images")
NONE, PREVIOUS = "none", "previous"  # words for `against`; else it is a checkpoint


@dataclass(frozen=True)
class CheckpointChoice:
    """The checkpoint."""

    checkpoint: Annotated[
        str,
        Field(
            description="Folder, file, hub id or MLflow address; empty trains the toy model. A "
            "diffusers pipeline (DDPM, DDIM, LDM, Stable Diffusion 1.x or 2.x) or UNet2DModel, as "
            "a folder or hub id; a .safetensors file with its config.json beside it; a .ckpt of "
            "the official DDIM code, of pytorch_diffusion or of KAIST's course; an MLflow address "
            "(runs:/, models:/, mlflow-artifacts:/)."
        ),
    ] = ""
    weights: Annotated[
        Weights,
        Field(description="`ema` takes the moving average where a checkpoint has both, or `raw`."),
    ] = "ema"
    noise_schedule: Annotated[
        str,
        Field(
            description="Instead of the checkpoint's own: linear, quad, cosine, constant, sigmoid "
            "or jsd. With the usual ends."
        ),
    ] = ""
    prediction_type: Annotated[
        str,
        Field(description="Instead of the checkpoint's own: epsilon, sample or v_prediction."),
    ] = ""
    prompts: Annotated[
        str,
        Field(
            description="Prompts for a checkpoint that is told of a text: a file with one a line, "
            "or a .jsonl with captions; empty takes the data set's captions. Image k is drawn for "
            "prompt k mod n."
        ),
    ] = ""


@dataclass(frozen=True)
class SamplerChoice:
    """The cells."""

    steps: Steps = (5, 10, 20, 50)
    etas: Etas = tuple(USUAL_ETAS)
    sigma_hat: Annotated[
        bool | None,
        Field(
            description="Also the larger DDPM variance; empty: only where etas are the usual ones. "
            "It is the official code's ddpm_noisy, which clips each predicted x0 to [-1, 1] (but "
            "for latents) where the other lines do not."
        ),
    ] = None
    spacing: SpacingChoice = "uniform"
    clip: Annotated[
        bool,
        Field(
            description="Clip each predicted x0 to [-1, 1] on every line. Off, sigma-hat alone "
            "still does, as the official code; latents are never clipped."
        ),
    ] = False
    guidance: Annotated[
        tuple[float, ...],
        Field(
            min_length=1,
            description="Scales of classifier-free guidance, with classes or prompts. 0 leaves the "
            "class out, 1 is no guidance. Image k is asked to be of class k mod n_classes.",
        ),
    ] = (1.0,)
    n_images: Annotated[
        int,
        Field(
            ge=LEAST_IMAGES, le=10**8, description="Images per cell; with more, only new are drawn."
        ),
    ] = 2048
    seed: Seed = 0
    shard_size: Annotated[
        int, Field(ge=LEAST_IMAGES, description="Images per unit of work and of caching.")
    ] = 2048


@dataclass(frozen=True)
class ScoreChoice:
    """Features and scores."""

    features: Annotated[
        str,
        Field(
            description="classifier, pixels, inception-v3, afhq-inception, clip-vit-b-32 or "
            "dinov2-vit-b-14. `classifier` is trained on the data set's labels; afhq-inception is "
            "any torchvision Inception."
        ),
    ] = "classifier"
    feature_weights: Annotated[
        str,
        Field(
            description="File, folder or hub id of its weights; empty takes the usual ones. A file "
            "for the Inceptions, a transformers folder or hub id for the others; the usual ones "
            "are downloaded once."
        ),
    ] = ""
    resize: Annotated[
        str,
        Field(
            description="From native size to the network: tf1, clean or torch; empty is its usual "
            "one."
        ),
    ] = ""
    matrix_images: Annotated[
        int,
        Field(
            ge=0,
            description="Images of the best cell that every protocol scores; 0: none. They go "
            "through every extractor and resize at hand, for the report's protocol matrix.",
        ),
    ] = 64


@dataclass(frozen=True)
class VerdictChoice:
    """The verdict."""

    against: Annotated[
        str,
        Field(
            description="Compare with: a checkpoint, models:/NAME@ALIAS, previous or none. "
            "`previous` is the last one scored by this protocol."
        ),
        Option("--against --reference"),
    ] = PREVIOUS
    at: Annotated[
        str, Field(description="Cell that decides, such as 20,0.5; empty chooses the best.")
    ] = ""
    margin: Annotated[
        float,
        Field(ge=0, allow_inf_nan=False, description="Largest FID difference that does not count."),
    ] = 0.0
    gate: Annotated[bool, Field(description="Fail if the checkpoint is proven worse.")] = False
    promote: Annotated[
        str,
        Field(
            description="Registered MLflow model whose champion is to be beaten. This checkpoint "
            "becomes it where it is better."
        ),
    ] = ""


@dataclass(frozen=True, kw_only=True)
class GridRequest:
    """A grid. Where sigma_hat is empty it is settled here: on with the usual etas, off with others.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    model: CheckpointChoice
    toy: Toy
    real: ImageChoice
    grid: SamplerChoice
    scores: ScoreChoice
    machine: Machine
    verdict: VerdictChoice

    def __post_init__(self) -> None:
        self.extractor()
        self._settle()
        require_choice("split", self.real.split, tuple(splits_of(self.real.dataset)))
        model, scores, grid = self.model, self.scores, self.grid
        if scores.matrix_images:
            require_at_least("matrix_images", scores.matrix_images, LEAST_IMAGES)
        if not grid.etas and not grid.sigma_hat:
            raise ValueError("etas is empty and sigma_hat is off; give at least one eta in [0, 1]")
        if model.checkpoint:
            require_location(model.checkpoint)
        elif model.prompts:
            raise ValueError(f"prompts is {model.prompts!r}; the toy model is told of no text")
        require_choice("noise_schedule", model.noise_schedule, ("", *SCHEDULES))
        require_choice("prediction_type", model.prediction_type, ("", *get_args(PredictionType)))
        if model.checkpoint:
            self.cells(max(grid.steps), "epsilon")  # all but S > T, which the checkpoint tells
        else:
            self._check_toy()
        self._check_verdict()

    def _settle(self) -> None:
        real, grid = self.real, self.grid
        real = replace(real, split=real.split or training_split(real.dataset))
        if not self.model.checkpoint:
            real = replace(real, resolution=toy_resolution(real.dataset, real.resolution))
        if grid.sigma_hat is None:
            grid = replace(grid, sigma_hat=list(grid.etas) == list(USUAL_ETAS))
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "grid", grid)

    def _check_toy(self) -> None:
        for cell in self.cells(self.training.training(1).noise.n_train, "epsilon"):
            if not self.toy.class_conditional and cell.sampler.guidance_scale != 1.0:
                raise ValueError(
                    f"guidance is {cell.sampler.guidance_scale:g}, which needs a model that "
                    "knows classes; turn class_conditional on"
                )

    def _check_verdict(self) -> None:
        asked, grid = self.verdict, self.grid
        if asked.gate and asked.against == NONE:
            raise ValueError("gate is on and against is 'none'; a gate needs a checkpoint to beat")
        if asked.against not in (PREVIOUS, NONE):
            require_location(asked.against)
        steps, _, line = (part.strip() for part in asked.at.partition(","))
        lines = [f"{eta:g}" for eta in grid.etas]
        lines += ["sigma-hat"] if grid.sigma_hat else []
        if asked.at and (steps not in map(str, grid.steps) or line not in lines):
            raise ValueError(
                f"at is {asked.at!r}, which is no cell of the grid; give S and eta of one, such as "
                f"{grid.steps[0]},{lines[0]}"
            )

    def identity(self, content: str) -> str:
        """Returns the digest of what is scored, whatever the checkpoint and wherever it is done.

        Args:
            content: The data set's content digest (`tasks.images.prepare.content_of`).
        """
        left_out = {*values(self.machine), *values(self.verdict), *NOT_SCORED}
        asked = {name: value for name, value in values(self).items() if name not in left_out}
        place = Path(self.scores.feature_weights)  # a file, a folder or a hub id
        told = file_digest(place) if place.is_file() else self.scores.feature_weights
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
        grid, model = self.grid, self.model
        if is_latent and grid.clip:
            raise ValueError("clip is on, and the checkpoint draws latents; clipping is for pixels")
        kind: Any = model.noise_schedule  # checked above
        noise = NoiseSpec(kind, n_train) if kind else None
        rows: list[tuple[Variance, float]] = [("eta", eta) for eta in dict.fromkeys(grid.etas)]
        rows += [("sigma_hat", 1.0)] if grid.sigma_hat else []
        cells = []
        for (variance, eta), scale in product(rows, dict.fromkeys(grid.guidance)):
            for steps in dict.fromkeys(grid.steps):
                sampler = SamplerSpec(
                    steps=steps,
                    eta=eta,
                    variance=variance,
                    spacing=grid.spacing,
                    prediction_type=model.prediction_type or prediction_type,  # type: ignore[arg-type]  # checked there
                    # sigma_hat clips as the official code does
                    clip=grid.clip or (variance == "sigma_hat" and not is_latent),
                    guidance_scale=scale,
                )
                timesteps(n_train, steps, grid.spacing)
                cells.append(GridCell(sampler, noise, grid.seed, prompts=prompts))
        return cells

    def shards(self) -> list[tuple[int, int]]:
        """Returns the image index ranges [start, stop) that cover n_images."""
        n, size = self.grid.n_images, self.grid.shard_size
        return [(start, min(start + size, n)) for start in range(0, n, size)]

    @property
    def training(self) -> ToyRequest:
        """How the toy model is trained, where there is no checkpoint."""
        return ToyRequest(real=self.real, toy=self.toy, seed=self.grid.seed)

    def with_images(self, n_images: int) -> GridRequest:
        """Returns the same grid with another number of images a cell."""
        return replace(self, grid=replace(self.grid, n_images=n_images))

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        grid, real = self.grid, self.real
        n_lines = len(dict.fromkeys(grid.etas)) + bool(grid.sigma_hat)
        n_cells = n_lines * len(dict.fromkeys(grid.guidance)) * len(dict.fromkeys(grid.steps))
        of = redacted(self.model.checkpoint) or "the toy model that is trained first"
        return (
            f"grid: {n_cells} cells of {grid.n_images} images, by {of}, against "
            f"{real.dataset} {real.split}, {self.extractor().label} features"
        )

    def extractor(self) -> ExtractorChoice:
        scores = self.scores
        return ExtractorChoice(scores.features, scores.feature_weights, scores.resize)

    def held_out_split(self) -> str | None:
        """Returns the data set's part that is neither trained on nor, by default, compared to."""
        real = self.real
        if real.split == "all":
            return None
        there_is = splits_of(real.dataset)
        others = (s for s in ("test", "val", "validation") if s in there_is and s != real.split)
        return next(others, None)
