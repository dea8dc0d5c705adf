"""Which model is asked for: a checkpoint, a toy of a data set, or one of points in the plane."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import LEAST_SEED_TOO_LARGE, MOST_STEPS, require_at_most
from ddim_core.common.plain_files import require_makeable
from ddim_core.devices.names import CPU
from ddim_core.diffusion.lint import by_steps, lint
from ddim_core.diffusion.schedule import NoiseSchedule, timesteps
from ddim_core.diffusion.scheduler_config import FLOW_PREDICTION
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec, Weights
from ddim_core.images.load import splits_of
from ddim_core.networks.specs import Objective, TargetSpec, ToyModelSpec, TrainSpec
from ddim_core.points.specs import PointSet, PointTrainSpec
from flows.requests.flat import Option, Without
from flows.requests.images import (
    DeviceChoice,
    ImageChoice,
    Machine,
)
from flows.requests.samplers.choice import Etas, Seed, SpacingChoice, Steps
from tasks.checkpoints.addresses import POSTHOC
from tasks.machine.device import require_device, settled

TOY_RESOLUTIONS = {"digits": 8, "emoji": 16, "smileys": 32}  # pixels

# What suits colours at 32 pixels better than what suits the digits: a larger network, more and
# smaller steps. Of other data sets it is the usual.
RECIPES = {
    "smileys": TrainSpec(
        ToyModelSpec(resolution=32, channels=3, widths=(24, 48, 64, 96), attention=(2, 3)),
        NoiseSpec(kind="cosine"), batch_size=16, learning_rate=1e-3, ema_decay=0.999, flip=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class CheckpointChoice:
    """The checkpoint."""

    checkpoint: Annotated[
        str,
        Field(
            description="Folder, file, hub id or MLflow address; empty trains the toy model. A "
            "diffusers pipeline that draws images from noise, or a UNet2DModel, as a folder or "
            "hub id; a .safetensors file with its config.json beside it, or of Stable Diffusion "
            "1.x, 2.x or SDXL with `configuration`; a .ckpt of "
            "the official DDIM code, of pytorch_diffusion or of KAIST's course; a .pkl of EDM or "
            "EDM2; a .pt of guided-diffusion (ADM), of improved-diffusion or of "
            "denoising-diffusion-pytorch, a .pth of score_sde (VP, some VE); a .pt of DiT, SiT, "
            "REPA or LightningDiT with its autoencoder; posthoc:FOLDER?std=0.08, an average of "
            "EDM2's snapshots; an MLflow address (runs:/, models:/, mlflow-artifacts:/)."
        ),
    ] = ""
    configuration: Annotated[
        str,
        Field(
            description="For a single .safetensors file of Stable Diffusion: a pipeline's folder "
            "or hub id of its kind. Its settings and tokenizers say what the file holds; its "
            "weights are not read. For a file of a network of latents (EDM2, DiT, SiT, REPA, "
            "LightningDiT) without `vae` beside it: the folder or hub id of its autoencoder, or of "
            "a pipeline with it."
        ),
    ] = ""
    guide: Annotated[
        str,
        Field(
            description="Another checkpoint, of any form, whose network guides in place of no "
            "class: autoguidance by a smaller or less trained one, as EDM2's gnet. `guidance` is "
            "its scale, prediction = guide's + g (prediction - guide's)."
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
    lora: Annotated[
        tuple[str, ...],
        Field(
            description="LoRA over the pipeline, FILE[:SCALE]; may be repeated. Any .safetensors "
            "that diffusers loads onto it (its own layout, kohya's)."
        ),
        Option("--lora", repeated=True),
    ] = ()
    prompts: Annotated[
        str,
        Field(
            description="Prompts for a checkpoint that is told of a text: a file with one a line, "
            "or a .jsonl with captions; empty takes the data set's captions. Image k is drawn for "
            "prompt k mod n. A .safetensors file holds what a pipeline's encoders make of them."
        ),
    ] = ""

    def __post_init__(self) -> None:
        if self.weights == "raw" and self.checkpoint.startswith(POSTHOC):
            raise ValueError(
                f"weights is 'raw', and {self.checkpoint!r:.200} is a moving average; leave it out"
            )


@dataclass(frozen=True)
class Toy:
    """The toy model."""

    train_steps: Annotated[
        int, Field(ge=1, le=MOST_STEPS, description="Training steps of the toy model.")
    ] = TrainSpec.steps
    class_conditional: Annotated[
        bool, Field(description="Train the toy model with the data set's labels.")
    ] = False
    objective: Annotated[
        Objective,
        Field(
            description="What the toy model learns to predict: epsilon, v or flow. `epsilon` is "
            "the noise, `v` mixes it with the image, `flow` is the velocity of a rectified flow, "
            "which has no schedule: samplers such as own, flow_heun and unipc draw it, ddim does "
            "not."
        ),
    ] = "epsilon"

    @property
    def predicts(self) -> str:
        """The same by diffusers' name: its scheduler's prediction_type."""
        return {"v": "v_prediction", "flow": FLOW_PREDICTION}.get(self.objective, self.objective)

    @property
    def kind(self) -> str:
        """What follows its data set in its name: nothing of the usual one."""
        of = "" if self.objective == Toy.objective else f"-{self.objective}"
        return ("-conditional" if self.class_conditional else "") + of


@dataclass(frozen=True, kw_only=True)
class ToyRequest:
    """The training.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """

    real: Annotated[ImageChoice, Without(("split",))]
    toy: Toy
    seed: Seed = 0
    output: Annotated[
        str,
        Field(description="Folder that it is copied to, in float16; empty: below DDIM_DATA alone."),
    ] = ""
    device: DeviceChoice = CPU

    def __post_init__(self) -> None:
        require_device(self.device)
        object.__setattr__(self, "device", settled(self.device))
        splits_of(self.real.dataset)
        self.training(1)
        require_output(self.output)

    def training(self, channels: int, n_classes: int | None = None) -> TrainSpec:
        """How the model is trained on images of so many channels."""
        real, toy = self.real, self.toy
        return toy_spec(
            real.dataset, real.resolution, channels, toy.train_steps, self.seed, n_classes,
            toy.objective,
        )  # fmt: skip

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        return f"train: the small model of {self.real.dataset}"


def require_output(output: str) -> None:
    """Refuses, before hours of training, a folder that could not be made or written into.

    Raises:
        ValueError: If it cannot, as tried; empty is fine.
    """
    if output:
        require_makeable(Path(output), "output")


def toy_spec(
    dataset: str,
    resolution: int | None,
    channels: int,
    train_steps: int,
    seed: int,
    n_classes: int | None = None,
    objective: Objective = "epsilon",
) -> TrainSpec:
    """Returns how the toy model of a data set is trained.

    Raises:
        ValueError: If no resolution is given where the data set has none of its own.
    """
    usual = RECIPES.get(dataset, TrainSpec())
    side = toy_resolution(dataset, resolution)
    spec = replace(
        usual,
        model=replace(usual.model, resolution=side, channels=channels, n_classes=n_classes),
        steps=train_steps,
        seed=seed,
    )
    return spec if objective == "epsilon" else TargetSpec(**vars(spec), target=objective)


def toy_resolution(dataset: str, resolution: int | None) -> int:
    """Returns the size in pixels that the toy model of a data set is trained at.

    Raises:
        ValueError: If no resolution is given where the data set has none of its own.
    """
    if resolution is None and dataset not in TOY_RESOLUTIONS:
        raise ValueError(
            f"no resolution is given for {dataset!r}; give a checkpoint, or the size in pixels to "
            "train a small model at (8, 16 or 32)"
        )
    return TOY_RESOLUTIONS[dataset] if resolution is None else resolution


def training_split(dataset: str) -> str:
    """Returns the part of a data set that models are trained on."""
    return "train" if "train" in splits_of(dataset) else "all"


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
