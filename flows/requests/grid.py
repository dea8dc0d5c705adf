"""What a grid can be asked for, the race over its cells, and the paper's experiments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field

from ddim_core.common.checks import require_at_least, require_choice
from ddim_core.common.digest import digest
from ddim_core.common.redaction import redacted
from ddim_core.devices.names import CPU, is_card, kind_of
from ddim_core.diffusion.specs import Execution, GridCell, NoiseSpec, PredictionType, SamplerSpec
from ddim_core.features.registry import ExtractorChoice
from ddim_core.image_scores.registry import SCORES, choices_of, require_no_prompts_needed
from ddim_core.images.load import splits_of
from ddim_core.samplers.catalogue import SIGMA_HAT
from ddim_core.samplers.families import DDIM
from ddim_core.samplers.name import parse_sampler
from flows.requests.flat import values
from flows.requests.images import (
    NONE,
    PREVIOUS,
    ImageChoice,
    Machine,
    ScoreChoice,
    VerdictChoice,
)
from flows.requests.models import CheckpointChoice, Toy, ToyRequest, toy_resolution, training_split
from flows.requests.samplers.cells import Sampled, cells_of
from flows.requests.samplers.choice import LEAST_IMAGES, SamplerChoice
from tasks.checkpoints.addresses import averaged, content_at, require_location
from tasks.checkpoints.loras import split_lora

TRAINED, LARGEST_TRAINED = "classifier", 128  # pixels
SCORED_ON_CARD = 5000  # images; a score of fewer is some CPU seconds
HAVE_FLOAT64 = (CPU, "cuda")  # kinds of card
SCHEDULES = ("linear", "quad", "cosine", "constant", "sigmoid", "jsd")
# Parameters that say which checkpoint and data set, by their names and not their content.
NOT_SCORED = (
    "checkpoint", "configuration", "dataset", "feature_weights", "train_steps", "matrix_images",
    "trajectories",
)  # fmt: skip
LATER: dict[str, Any] = {
    "samplers": (), "lora": (), "lora_scales": (1.0,), "objective": Toy.objective,
    "dtype": SamplerChoice.dtype, "image_scores": (), "guidance_interval": (),
    "guidance_channels": None, "guide": "",
}  # fmt: skip


@dataclass(frozen=True)
class ReportChoice:
    """The report."""

    trajectories: Annotated[
        int | None,
        Field(
            ge=0,
            le=24,
            description="First images of each cell whose predicted x0 the page shows step by step; "
            "empty: 4 of a network of pixels, else none. They are drawn once more for it; 0: none. "
            "A pipeline's own call keeps no x0.",
        ),
    ] = None


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
    report: ReportChoice = ReportChoice()

    def __post_init__(self) -> None:
        self.extractor()
        self.machine.require_dtype(self.grid.dtype)
        self.real.require_usable(bool(self.model.checkpoint), self.scores.features)
        self._settle()
        require_choice("split", self.real.split, tuple(splits_of(self.real.dataset)))
        model, scores, grid = self.model, self.scores, self.grid
        if scores.matrix_images:
            require_at_least("matrix_images", scores.matrix_images, LEAST_IMAGES)
        if not grid.etas and not grid.with_sigma_hat and set(grid.samplers) <= {"ddim"}:
            raise ValueError("etas is empty and sigma_hat is off; give at least one eta in [0, 1]")
        if model.checkpoint:
            if self.toy.objective != Toy.objective:
                raise ValueError(
                    f"objective is {self.toy.objective!r}, and the checkpoint is trained already; "
                    "leave one of them out"
                )
            require_location(model.checkpoint)
            self._check_configuration()
            self._check_guide()
        elif model.guide:
            raise ValueError(f"guide is {redacted(model.guide)!r} and no checkpoint is given")
        elif model.configuration:
            raise ValueError(f"configuration is {model.configuration!r} and no checkpoint is given")
        elif model.lora:
            raise ValueError(f"lora is {model.lora[0]!r}; the toy model takes none")
        elif model.prompts:
            raise ValueError(f"prompts is {model.prompts!r}; the toy model is told of no text")
        else:
            require_no_prompts_needed(choices_of(scores.image_scores), "the toy model")
        for text in model.lora:
            split_lora(text)
        if not model.lora and grid.lora_scales != SamplerChoice.lora_scales:
            raise ValueError("lora_scales are given and no lora; name a file, or leave them out")
        require_choice("noise_schedule", model.noise_schedule, ("", *SCHEDULES))
        require_choice("prediction_type", model.prediction_type, ("", *get_args(PredictionType)))
        if model.checkpoint:
            # All but S > T and what of the samplers fits, which the checkpoint tells.
            self.cells(self.expected)
        else:
            self._check_toy()
        self._check_verdict()

    def _settle(self) -> None:
        real, grid = self.real, self.grid
        real = replace(real, split=real.split or training_split(real.dataset))
        if not self.model.checkpoint:
            real = replace(real, resolution=toy_resolution(real.dataset, real.resolution))
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "grid", grid.settled())

    def _check_configuration(self) -> None:
        place, described = Path(self.model.checkpoint), self.model.configuration
        if described and not (place.is_file() or averaged(self.model.checkpoint)):
            raise ValueError(
                f"configuration is {redacted(described)!r}, which belongs to one file of weights, "
                f"and the checkpoint {redacted(str(place))!r} is none; leave it out"
            )
        if described:
            require_location(described, "take what lies beside the weights")

    def _check_guide(self) -> None:
        model = self.model
        if not model.guide:
            return
        require_location(model.guide, "be guided by no class")
        if self.grid.is_unguided:
            raise ValueError(
                f"guide is {redacted(model.guide)!r}, and guidance is 1, which is none; give "
                "another scale, such as 2"
            )
        if model.lora:
            raise ValueError(
                f"guide is {redacted(model.guide)!r} and lora {model.lora[0]!r}; pipelines told of "
                "a text are guided by their own call"
            )

    def _check_toy(self) -> None:
        for cell in self.cells(self.expected):
            if not self.toy.class_conditional and cell.sampler.guidance_scale != 1.0:
                raise ValueError(
                    f"guidance is {cell.sampler.guidance_scale:g}, which needs a model that "
                    "knows classes; turn class_conditional on"
                )

    def _check_verdict(self) -> None:
        asked = self.verdict
        judged = [SCORES[one.name].column for one in choices_of(self.scores.image_scores)]
        if asked.measure.weighed and asked.decide_by not in judged:
            raise ValueError(
                f"decide_by is {asked.decide_by!r}, which image_scores "
                f"({', '.join(judged) or 'none'}) does not ask for; name it there too"
            )
        if asked.gate and asked.against == NONE:
            raise ValueError("gate is on and against is 'none'; a gate needs a checkpoint to beat")
        if asked.against not in (PREVIOUS, NONE):
            require_location(asked.against)
        if asked.promote and self.model.lora:
            raise ValueError(
                f"promote is {asked.promote!r} and lora {self.model.lora[0]!r}; a registered model "
                "is a checkpoint, which a LoRA does not become; leave one of them out"
            )
        cells = self.cells(self.expected)
        if asked.at and not any(may_name(asked.at, cell) for cell in cells):
            first = cells[0].sampler
            raise ValueError(
                f"at is {asked.at!r}, which is no cell of the grid; give S and eta (or the sampler)"
                f" of one, such as {first.steps},{first.at}"
            )

    def identity(self, content: str) -> str:
        """Returns the digest of what is scored, whatever the checkpoint and wherever it is done.

        Args:
            content: The data set's content digest (`tasks.images.prepare.content_of`).
        """
        left_out = {*values(self.machine), *values(self.verdict), *NOT_SCORED}
        asked = {name: value for name, value in values(self).items() if name not in left_out}
        asked["sigma_hat"] = self.grid.with_sigma_hat
        for name, usual in LATER.items():  # as before there were any
            if asked[name] == usual:
                del asked[name]
        if self.model.guide:
            asked["guide"] = content_at(self.model.guide)
        return digest(asked | self.machine.counts, content, self.scores.weights_content)

    def cells(self, known: Sampled, prompts: str | None = None) -> list[GridCell]:
        """Returns the grid's cells, by row and then by S, for a checkpoint.

        Args:
            known: What the checkpoint says; its prediction type counts where the request has none.
            prompts: Digest of its stored prompts, if it is told of a text.

        Raises:
            ValueError: If a setting cannot be, such as S = 0, S > T or eta = 2.
        """
        if not known.is_native:
            self._require_own_wiring()
        kind: Any = self.model.noise_schedule  # checked above
        noise = NoiseSpec(kind, known.n_train) if kind else None
        asked = self.model.prediction_type or known.prediction_type
        return cells_of(self.grid, replace(known, prediction_type=asked), noise, prompts)

    def _require_own_wiring(self) -> None:
        model = self.model
        for name in ("noise_schedule", "prediction_type"):
            if given := getattr(model, name):
                raise ValueError(
                    f"{name} is {given!r}, and diffusers' schedulers draw this checkpoint as its "
                    "own scheduler says; leave it out"
                )

    @property
    def expected(self) -> Sampled:
        """What is known of the checkpoint before it is opened, or trained."""
        if self.model.checkpoint:
            return Sampled(max(self.grid.steps))
        n_train = self.training.training(1).noise.n_train
        return Sampled(n_train, self.toy.predicts, is_native=self.toy.objective != "flow")

    def require_trainable(self, resolution: int) -> None:
        """Refuses to train the classifier of the features where it takes too long to wait for: at
        256 pixels over nine minutes of a CPU, whatever is drawn.

        Raises:
            ValueError: If it does; says what to take.
        """
        asked = self.scores.features
        if asked != TRAINED or resolution <= LARGEST_TRAINED or is_card(self.machine.device):
            return
        raise ValueError(
            f"features is {asked!r}, which is trained first, and images of {resolution} x "
            f"{resolution} pixels take a CPU too long (at most {LARGEST_TRAINED}); give --features "
            "inception-v3 or another pretrained one"
        )

    def shards(self) -> list[tuple[int, int]]:
        """Returns the image index ranges [start, stop) that cover n_images."""
        n, size = self.grid.n_images, self.grid.shard_size
        return [(start, min(start + size, n)) for start in range(0, n, size)]

    @property
    def training(self) -> ToyRequest:
        """How the toy model is trained, where there is no checkpoint."""
        seed, device = self.grid.seed, self.machine.device
        return ToyRequest(real=self.real, toy=self.toy, seed=seed, device=device)

    def scored_by(self, n_images: int) -> tuple[Execution, str]:
        """How so many images are scored, a few by a CPU beside the card and many by the card; and
        `Machine.arithmetic_for` them."""
        machine = self.machine
        by_card = is_card(machine.device) and kind_of(machine.device) in HAVE_FLOAT64
        if not by_card or n_images < SCORED_ON_CARD:
            return Execution(threads=machine.threads), ""
        return machine.execution, machine.arithmetic_for(self.grid.dtype)

    def with_images(self, n_images: int) -> GridRequest:
        """Returns the same grid with another number of images a cell."""
        return replace(self, grid=replace(self.grid, n_images=n_images))

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        grid, real = self.grid, self.real
        n_cells = len(self.cells(self.expected))
        of = redacted(self.model.checkpoint) or "the toy model that is trained first"
        return (
            f"grid: {n_cells} cells of {grid.n_images} images, by {of}, against "
            f"{real.dataset} {real.split}, {self.extractor().label} features"
        )

    def extractor(self) -> ExtractorChoice:
        scores = self.scores
        return ExtractorChoice(scores.features, scores.feature_weights, scores.resize)


def may_name(at: str, cell: GridCell) -> bool:
    """Tells whether S and eta or sampler can name a cell: keys of a sampler that say what it does
    anyway are known to be so once the checkpoint is there."""
    from ddim_core.decisions.place import read_place  # slow to import

    asked, sampler = read_place(at), cell.sampler
    if asked is None or asked.steps != sampler.steps:
        return False
    if isinstance(sampler, SamplerSpec):
        if sampler.variance == "sigma_hat":
            return asked.sampler == SIGMA_HAT
        return asked.sampler in ("", DDIM) and asked.eta == sampler.eta
    try:
        written = parse_sampler(asked.sampler)
    except ValueError:
        return False
    return written.name == parse_sampler(sampler.sampler).name
