"""What several flows can be asked for: real images, and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import (
    LEAST_SEED_TOO_LARGE,
    MOST_BATCH,
    MOST_IMAGES,
    MOST_SIDE,
    MOST_THREADS,
)
from ddim_core.diffusion.specs import Execution, ImageSpec, Spacing
from ddim_core.images.sources.colour import rgb_of
from flows.run.runner_names import is_elsewhere, require_runner
from tasks.machine.device import require_device

Steps = Annotated[tuple[int, ...], Field(min_length=1, description="Numbers of steps S.")]
Etas = Annotated[
    tuple[float, ...],
    Field(description="Noise fractions eta in [0, 1]; 0 is deterministic DDIM, 1 is DDPM-like."),
]
SpacingChoice = Annotated[
    Spacing,
    Field(description="How S timesteps are chosen: uniform, quad, leading, linspace or trailing."),
]
Seed = Annotated[
    int,
    Field(
        ge=0,
        lt=LEAST_SEED_TOO_LARGE,
        description="Keys all that is random: every image's stream, and trainings.",
    ),
]


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
            le=MOST_SIDE,
            description="Pixels, to train on your own data. Images are resized to a checkpoint's "
            "own size.",
        ),
    ] = None
    max_broken: Annotated[
        int,
        Field(
            ge=0,
            le=MOST_IMAGES,
            description="Broken images to leave out at most. They are named in the report; more "
            "are refused.",
        ),
    ] = 0
    background: Annotated[str, Field(description="The colour (CSS) under transparent pixels.")] = (
        "white"
    )
    skin_tones: Annotated[bool, Field(description="Emoji with all skin tones.")] = True

    def __post_init__(self) -> None:
        rgb_of(self.background)

    @property
    def spec(self) -> ImageSpec:
        """How images are read."""
        return ImageSpec(self.max_broken, self.background, self.skin_tones)


@dataclass(frozen=True)
class Machine:
    """The machine."""

    batch_size: Annotated[
        int,
        Field(
            ge=1, le=MOST_BATCH, description="Images per network call; changes no result on a CPU."
        ),
    ] = 256
    threads: Annotated[
        int,
        Field(
            ge=1, le=MOST_THREADS, description="Torch threads per task; changes no result on a CPU."
        ),
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
        int | None, Field(ge=1, le=MOST_THREADS, description="Tasks at once; empty is one a core.")
    ] = None

    def __post_init__(self) -> None:
        require_runner(self.runner, self.workers)
        if not is_elsewhere(self.runner):
            require_device(self.device)

    @property
    def execution(self) -> Execution:
        """How tasks are run here; no part of any key."""
        return Execution(self.device, self.batch_size, self.threads)
