"""What several flows can be asked for: real images, scores, what decides, and the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ddim_core.common.checks import (
    MOST_BATCH,
    MOST_IMAGES,
    MOST_SIDE,
    MOST_THREADS,
)
from ddim_core.common.digest import file_digest
from ddim_core.decisions.measure import Decider, Measure, measure_of
from ddim_core.devices.names import AUTO, CPU, is_card, kind_of
from ddim_core.diffusion.specs import Execution, ImageSpec, OnCard
from ddim_core.features.registry import pretrained
from ddim_core.image_scores.registry import choices_of
from ddim_core.images.load import splits_of
from ddim_core.images.moments import is_moments
from ddim_core.images.sources.colour import rgb_of
from ddim_core.statistics.reference_files import statistics_for
from flows.requests.flat import Option
from flows.run.runner_names import is_elsewhere, require_runner
from tasks.machine.device import require_device, settled

LARGEST_BATCH, PIXELS_AT_ONCE, PIXELS_ON_CARD = 16, 2**20, 2**22  # of a pipeline's call
NONE, PREVIOUS = "none", "previous"  # words for `against`; else it is a checkpoint


@dataclass(frozen=True)
class ImageChoice:
    """Real images."""

    dataset: Annotated[
        str,
        Field(
            description="digits, emoji, smileys, a folder, a file with images, or owner/name on "
            "the Hugging Face hub. A folder is flat, a folder per class, or with splits; more: "
            "docs/data-sets.md. A grid also takes statistics (.npz of mu and sigma, EDM2's .pkl)."
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
            description="Pixels: to train on your own data, or of a pipeline's pictures, where its "
            "call takes a size. Empty is a checkpoint's own; real images are resized to it.",
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

    def require_usable(self, with_checkpoint: bool, features: str) -> None:
        """Makes sure, where it is a file of statistics, that a grid can be scored against it.

        Raises:
            ValueError: If there is no checkpoint, or the features are not those of the file.
        """
        if not is_moments(self.dataset):
            return
        name = Path(self.dataset).name
        if not with_checkpoint:
            raise ValueError(f"{name} holds statistics and no images to train on; give checkpoint")
        if pretrained(features) is None:
            raise ValueError(
                f"features is {features!r}, and {name} holds statistics and no images; name the "
                "pretrained features that it is of, such as inception-v3"
            )
        if statistics_for(Path(self.dataset), features) is None:
            raise ValueError(f"{name} has no statistics of {features}")

    @property
    def spec(self) -> ImageSpec:
        """How images are read."""
        return ImageSpec(self.max_broken, self.background, self.skin_tones)

    def held_out_split(self) -> str | None:
        """The part that is neither trained on nor, by default, compared to."""
        if self.split == "all":
            return None
        there_is = splits_of(self.dataset)
        others = (s for s in ("test", "val", "validation") if s in there_is and s != self.split)
        return next(others, None)


ImageScores = Annotated[
    tuple[str, ...],
    Field(
        examples=[["clip-score", "hpsv2=v2.0", "aesthetic=models/aesthetic"]],
        description="Scores of images one by one, NAME[=PLACE]: clip-score, pick-score, hpsv2, "
        "image-reward, aesthetic. All but the last judge a picture by its prompt. PLACE is a "
        "folder, a hub id or a version; without it the usual weights are fetched once.",
    ),
]


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
            le=MOST_IMAGES,
            description="Images of the best cell that every protocol scores; 0: none. They go "
            "through every extractor and resize at hand, for the report's protocol matrix.",
        ),
    ] = 64
    image_scores: ImageScores = ()

    def __post_init__(self) -> None:
        choices_of(self.image_scores)

    @property
    def weights_content(self) -> str:
        """What identifies the extractor's weights: a file's digest, a folder or a hub id."""
        place = Path(self.feature_weights)
        return file_digest(place) if place.is_file() else self.feature_weights


DeviceChoice = Annotated[
    str,
    Field(
        description="cpu, cuda (all cards of the host), cuda:1, cuda:0,cuda:2, mps, or auto: CUDA "
        "where it is. One task a card; what a card works out is another result."
    ),
]


@dataclass(frozen=True)
class VerdictChoice:
    """The verdict."""

    against: Annotated[
        str,
        Field(
            description="Compare with: a checkpoint, models:/NAME@ALIAS, previous or none. "
            "`previous` is the last one scored by this protocol. A LoRA's file takes the place of "
            "the LoRA that is named first."
        ),
        Option("--against --reference"),
    ] = PREVIOUS
    at: Annotated[
        str, Field(description="Cell that decides, such as 20,0.5; empty chooses the best.")
    ] = ""
    margin: Annotated[
        float,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Largest difference that does not count, in the unit of what decides. 0: "
            "verdicts count every difference, and a grid recommends by half of the interval of "
            "held-out real images, or 2 % of the best value.",
        ),
    ] = 0.0
    decide_by: Annotated[
        Decider,
        Field(
            description="Score that decides: fid, fid_inf, clip_score, pick_score, hpsv2, "
            "image_reward or aesthetic. It says which cell is best, recommended, better or worse."
        ),
    ] = "fid"
    twins: Annotated[
        tuple[str, ...],
        Field(
            description="Trainings of one recipe, whose spread counts as no difference. Scored "
            "checkpoints that differ in their training seed alone: names in the table or patterns "
            "of them (`faces-seed*`), folders or digests; 2 at least, better 5."
        ),
    ] = ()
    gate: Annotated[bool, Field(description="Fail if the checkpoint is proven worse.")] = False
    promote: Annotated[
        str,
        Field(
            description="Registered MLflow model whose champion is to be beaten. This checkpoint "
            "becomes it where it is better."
        ),
    ] = ""

    @property
    def measure(self) -> Measure:
        """What decides."""
        return measure_of(self.decide_by)


@dataclass(frozen=True)
class Machine:
    """The machine."""

    batch_size: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_BATCH,
            description="Most images per network call; changes no result on a "
            "CPU, but of pipelines. On a card it is part of the cell.",
        ),
    ] = 256
    threads: Annotated[
        int,
        Field(
            ge=1, le=MOST_THREADS, description="Torch threads per task; changes no result on a CPU."
        ),
    ] = 1
    device: DeviceChoice = CPU
    compile: Annotated[
        bool,
        Field(
            description="Networks that draw on a card run as torch.compile made them: other cells."
        ),
    ] = False
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
            object.__setattr__(self, "device", settled(self.device))
        elif self.device == AUTO:
            raise ValueError(
                f"device is auto, and runner {self.runner!r} works elsewhere; name the device"
            )
        if self.compile and not is_card(self.device):
            raise ValueError("compile is on, which is for cards; on a CPU networks run traced")

    def require_dtype(self, dtype: str) -> None:
        """Makes sure that a number format means something on the device.

        Raises:
            ValueError: If not.
        """
        if dtype == "tf32" and not is_card(self.device):
            raise ValueError(
                "dtype is 'tf32', which is how a GPU multiplies float32; on a CPU give float32"
            )

    def arithmetic_for(self, dtype: str) -> str:
        """How features of cells of a number format are taken on a card; empty on a CPU."""
        if not is_card(self.device):
            return ""
        return "float32" if dtype in ("float32", "float64") else "tf32"

    def batch_at(self, resolution: int) -> int:
        """How many images are drawn at once by a pipeline, and on a card by any network: by their
        size alone where `batch_size` allows it."""
        if is_card(self.device):
            return min(self.batch_size, max(1, PIXELS_ON_CARD // resolution**2))
        return min(self.batch_size, max(1, min(LARGEST_BATCH, PIXELS_AT_ONCE // resolution**2)))

    def card_at(self, resolution: int) -> OnCard | None:
        """What a card adds to the cells of a checkpoint of this resolution; None on a CPU."""
        if not is_card(self.device):
            return None
        return OnCard(kind_of(self.device), self.batch_at(resolution), self.compile)

    @property
    def undeciding(self) -> frozenset[str]:
        """Names of what of it decides no result."""
        return frozenset(("threads", "runner", "workers") if self.counts else vars(self))

    @property
    def counts(self) -> dict[str, list[Any]]:
        """What of the machine is part of a grid: nothing on a CPU."""
        told = [kind_of(self.device), self.batch_size, self.compile]
        return {"card": told} if is_card(self.device) else {}

    @property
    def execution(self) -> Execution:
        """How tasks are run here; no part of any key."""
        return Execution(self.device, self.batch_size, self.threads)
