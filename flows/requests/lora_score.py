"""What the flow `lora-score` can be asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ddim_core.common.checks import (
    LEAST_SEED_TOO_LARGE,
    MOST_DRAWING_STEPS,
    MOST_IMAGES,
)
from ddim_core.common.digest import digest
from ddim_core.common.plain_files import is_there
from ddim_core.image_scores.registry import choices_of
from ddim_core.images.load import splits_of
from ddim_core.lora.scoring.specs import require_scales
from ddim_core.safe_files.loras.files import EpochFile, epoch_files, require_lora, shapes_of
from ddim_core.safe_files.loras.places import Directory, base_layers, require_base, require_fit
from ddim_core.safe_files.weight_names import TENSORS
from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.embedded import embedded_base
from ddim_core.text2image.prompts import read_prompts
from flows.requests.flat import Option, values
from flows.requests.images import DeviceChoice, ImageChoice, ImageScores
from tasks.checkpoints.addresses import content_at, require_location
from tasks.machine.device import require_device, settled

MOST_PICTURES = 20_000  # of one setting; all lie in memory together
BY_CONTENT = ("prompts", "base", "held_out_images", "clip", "dino", "against")
HELD_OUT = ("test", "val", "validation")
TRAIN = "train"


def require_pictures(n_prompts: int, images_per_prompt: int) -> None:
    """Makes sure that a setting's pictures are not too many to be compared.

    Raises:
        ValueError: If they are.
    """
    if n_prompts * images_per_prompt > MOST_PICTURES:
        raise ValueError(
            f"images_per_prompt is {images_per_prompt}, which makes "
            f"{n_prompts * images_per_prompt} pictures of the prompts at each setting; at most "
            f"{MOST_PICTURES} are compared"
        )


@dataclass(frozen=True)
class LoraChoice:
    """The LoRAs and their base."""

    loras: Annotated[
        tuple[str, ...],
        Field(
            description="LoRA files, or folders of the epochs of one: .safetensors of sd-scripts, "
            "ai-toolkit, diffusers' scripts or PEFT.",
        ),
        Option("LORAS", repeated=True),
    ] = ()
    base: Annotated[
        str,
        Field(
            description="Text-to-image pipeline that they lie over, a folder or hub id; empty is "
            "the small embedded one. Stable Diffusion 1.x, 2.x, XL, 3, Flux, or any other of "
            "diffusers that takes LoRAs."
        ),
    ] = ""


@dataclass(frozen=True)
class TargetChoice:
    """What they should draw."""

    prompts: Annotated[
        str,
        Field(
            description="File with a prompt a line, or .jsonl with captions; with the trigger word,"
            " if there is one. For a base without text encoders a .safetensors file of what they "
            "would make of the prompts."
        ),
    ] = ""
    style_images: Annotated[
        str,
        Field(
            description="Images of the style, those that the LoRA was trained on if they are at "
            "hand: any data set that a grid reads."
        ),
    ] = ""
    subject_images: Annotated[
        str, Field(description="Images of the subject, likewise, in place of a style's.")
    ] = ""
    held_out_images: Annotated[
        str,
        Field(
            description="Others of the same style or subject that it was not trained on, to tell "
            "copies by; empty takes the split test or val of the images, where there is one."
        ),
    ] = ""


@dataclass(frozen=True)
class ScoredPictures:
    """Pictures and scores."""

    scales: Annotated[
        tuple[float, ...],
        Field(min_length=1, description="How much of the LoRA counts; the base is 0."),
    ] = (0.6, 0.8, 1.0)
    samplers: Annotated[
        tuple[str, ...],
        Field(min_length=1, description="As of a grid; own is the base's own scheduler."),
    ] = ("own",)
    images_per_prompt: Annotated[
        int, Field(ge=1, le=MOST_IMAGES, description="Pictures of each prompt, of other noise.")
    ] = 2
    steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_DRAWING_STEPS,
            description="Sampling steps; empty is 30, embedded base 16.",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Guidance; empty is what the base's own call takes, embedded base 5.",
        ),
    ] = None
    clip: Annotated[
        str,
        Field(description="CLIP folder or hub id: likeness is by it, and what is lost of prompts."),
    ] = ""
    dino: Annotated[
        str, Field(description="DINO or DINOv2 folder or hub id: likeness is by it.")
    ] = ""
    image_scores: ImageScores = ()
    seed: Annotated[int, Field(ge=0, lt=LEAST_SEED_TOO_LARGE, description="Keys the noise.")] = 0


@dataclass(frozen=True)
class LoraVerdict:
    """The verdict."""

    against: Annotated[
        str, Field(description="A LoRA file or folder to be compared with, drawn likewise.")
    ] = ""
    gate: Annotated[bool, Field(description="Fail if these are proven worse than that.")] = False


@dataclass(frozen=True)
class ScoringMachine:
    """The machine."""

    device: DeviceChoice = "cpu"
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        Field(description="Number format of the networks: float32, float16 or bfloat16."),
    ] = "float32"


@dataclass(frozen=True, kw_only=True)
class LoraScoreRequest:
    """LoRAs that somebody else trained.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    lora: LoraChoice
    target: TargetChoice
    pictures: ScoredPictures
    verdict: LoraVerdict
    machine: ScoringMachine

    def __post_init__(self) -> None:
        if not self.lora.loras:
            raise ValueError("no LoRA is given; give a .safetensors file or a folder of epochs")
        places = [*self.lora.loras, *filter(None, [self.verdict.against])]
        files = [file for place in places for file in epoch_files(Path(place))]
        for file in files:
            require_lora(file)
        self._check_base(files)
        self._check_target()
        if not any(require_scales(tuple(self.pictures.scales))):
            raise ValueError("scales holds 0 alone, which is the base; give one above it")
        for sampler in self.pictures.samplers:
            parse_sampler(sampler)
        choices_of(self.pictures.image_scores)
        if self.verdict.gate and not self.verdict.against:
            raise ValueError("gate is on and against is empty; a gate needs a LoRA to beat")
        require_device(self.machine.device)
        object.__setattr__(self.machine, "device", settled(self.machine.device))

    def _check_base(self, files: Sequence[EpochFile]) -> None:
        """Holds every file against the base, as far as headers tell; hub ids and single files of
        whole pipelines are left to the flow."""
        base = self.lora.base
        if base:
            require_location(base, "take the embedded base")
        folder = Path(base) if base else embedded_base()
        if not folder.is_dir():
            return
        require_base(folder)
        directory = Directory(base_layers(folder))
        name = folder.resolve().name if base else "the embedded base"
        for file in files:
            require_fit(file.name, shapes_of(file), folder, directory, name)

    def _check_target(self) -> None:
        target = self.target
        if not target.prompts:
            raise ValueError("prompts is empty; give a file with one a line")
        if not target.prompts.endswith(TENSORS):
            require_pictures(len(read_prompts(target.prompts)), self.pictures.images_per_prompt)
        elif not is_there(Path(target.prompts)):
            raise ValueError(f"there is no file of encoded prompts {target.prompts!r}")
        else:
            require_pictures(1, self.pictures.images_per_prompt)
        if bool(target.style_images) == bool(target.subject_images):
            given = "both are given" if target.style_images else "neither is given"
            raise ValueError(
                f"style_images or subject_images say what the LoRA should draw, and {given}; "
                "give one of them"
            )
        splits_of(self.images)
        if target.held_out_images:
            splits_of(target.held_out_images)
            if Path(target.held_out_images).resolve() == Path(self.images).resolve():
                raise ValueError(
                    f"held_out_images is {target.held_out_images!r}, the {self.kind}'s own images; "
                    "give others that the LoRA was not trained on, or leave it out"
                )

    def identity(self, content: str) -> str:
        """Returns the digest of what is scored and against what, whatever the LoRAs.

        Of what lies on this machine the content counts.

        Args:
            content: Of the images of the style or the subject.
        """
        asked = {
            name: value
            for name, value in values(self).items()
            if name not in {"loras", "gate", "device"}
        }
        asked |= {name: content_at(str(asked[name])) for name in BY_CONTENT if asked[name]}
        return digest(asked, content)

    @property
    def real(self) -> ImageChoice:
        """The images of the style or the subject, as a grid has its own."""
        return ImageChoice(dataset=self.images)

    @property
    def kind(self) -> str:
        return "style" if self.target.style_images else "subject"

    @property
    def images(self) -> str:
        """Where the images of the style or the subject are."""
        return self.target.style_images or self.target.subject_images

    @property
    def training_split(self) -> str:
        """The part of the images that the LoRA may have been trained on."""
        return TRAIN if TRAIN in splits_of(self.images) else "all"

    @property
    def held_out(self) -> tuple[str, str] | None:
        """Place and split of images that it was not trained on, if there are any."""
        if given := self.target.held_out_images:
            return given, "all"
        if self.training_split != TRAIN:
            return None
        there_is = splits_of(self.images)
        return next(((self.images, split) for split in HELD_OUT if split in there_is), None)

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        n = sum(len(epoch_files(Path(place))) for place in self.lora.loras)
        settings = len(self.pictures.scales) * len(self.pictures.samplers)
        base = self.lora.base or "the embedded base"
        return (
            f"lora score: {n} files at {settings} settings on {base}, by {self.kind} {self.images}"
        )
