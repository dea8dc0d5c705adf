"""What a grid, the race over its cells, and the paper's experiments can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ddim_core.specs import Spacing, TrainSpec, Weights
from flows.requests.flat import Option

USUAL_ETAS = (0.0, 0.2, 0.5, 1.0)
LEAST_IMAGES = 2  # one image has no covariance
NONE, PREVIOUS = "none", "previous"  # words for `against`; else it is a checkpoint

Steps = Annotated[tuple[int, ...], Field(min_length=1, description="Numbers of steps S.")]
Etas = Annotated[
    tuple[float, ...],
    Field(description="Noise fractions eta in [0, 1]; 0 is deterministic DDIM, 1 is DDPM-like."),
]


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
    train_steps: Annotated[int, Field(ge=1, description="Training steps of the toy model.")] = (
        TrainSpec.steps
    )
    class_conditional: Annotated[
        bool, Field(description="Train the toy model with the data set's labels.")
    ] = False


@dataclass(frozen=True)
class ImageChoice:
    """Real images."""

    dataset: Annotated[
        str,
        Field(
            description="digits, emoji, a folder, a file with images, or owner/name on the Hugging "
            "Face hub. A folder is flat, a folder per class, or with splits; docs/data-sets.md has "
            "all forms."
        ),
    ] = "digits"
    split: Annotated[
        str,
        Field(
            description="The part that is the reference; empty is `train` where there is one, else "
            "all."
        ),
    ] = ""
    resolution: Annotated[
        int | None,
        Field(
            ge=1,
            description="Pixels, to train on your own data. Images are resized to a checkpoint's "
            "own size.",
        ),
    ] = None
    max_broken: Annotated[
        int,
        Field(
            ge=0,
            description="Broken images to leave out at most. They are named in the report; more "
            "are refused.",
        ),
    ] = 0
    background: Annotated[str, Field(description="The colour (CSS) under transparent pixels.")] = (
        "white"
    )
    skin_tones: Annotated[bool, Field(description="Emoji with all skin tones.")] = True


@dataclass(frozen=True)
class SamplerChoice:
    """The cells."""

    steps: Steps = (5, 10, 20, 50)
    etas: Etas = USUAL_ETAS
    sigma_hat: Annotated[
        bool | None,
        Field(
            description="Also the larger DDPM variance; empty: only where etas are the usual ones. "
            "It is the official code's ddpm_noisy, which clips each predicted x0 to [-1, 1] (but "
            "for latents) where the other lines do not."
        ),
    ] = None
    spacing: Annotated[
        Spacing,
        Field(
            description="How S timesteps are chosen: uniform, quad, leading, linspace, trailing."
        ),
    ] = "uniform"
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
            ge=LEAST_IMAGES,
            description="Images per cell. Asking for more later draws only the new ones.",
        ),
    ] = 2048
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=2**63,
            description="Keys every image's random stream, and the toy model's training.",
        ),
    ] = 0
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
class Machine:
    """The machine."""

    batch_size: Annotated[
        int, Field(ge=1, description="Images per network call; changes no result on a CPU.")
    ] = 256
    threads: Annotated[
        int, Field(ge=1, description="Torch threads per task; changes no result on a CPU.")
    ] = 1
    device: Annotated[str, Field(description="cpu, or a CUDA device (untested).")] = "cpu"
    runner: Annotated[
        str,
        Field(
            description="threads, processes, dask[:ADDRESS] or ray[:ADDRESS]. Where tasks run: on "
            "this machine or on a cluster; changes no result on CPUs of one kind."
        ),
    ] = "threads"
    workers: Annotated[
        int | None, Field(ge=1, description="Tasks at once; empty is one a core.")
    ] = None


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
