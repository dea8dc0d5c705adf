"""What the LoRA flows can be asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field

from ddim_core.common.checks import MOST_DRAWING_STEPS, MOST_IMAGES, MOST_SIDE
from ddim_core.image_scores.registry import choices_of
from ddim_core.lora.data import require_data
from ddim_core.lora.scoring.specs import require_scales
from ddim_core.lora.specs import USUAL_OF_FLUX, USUAL_OF_SD3, LoraExecution, LoraSpec
from ddim_core.lora.trainers.source import settings_of
from flows.requests.flat import (
    Asked,
    Elsewhere,
    Option,
    Without,
    build,
    parameters,
    values,
)
from flows.requests.images import ImageScores
from tasks.machine.device import require_device

TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# What suits the embedded base, which draws at 32 pixels, and its 152 pictures of a style,
STYLE_RECIPE = LoraSpec(
    rank=16, targets=("attention", "feed-forward"), steps=160, batch_size=16,
    learning_rate=1.5e-3, schedule="cosine", caption_dropout=0.1, checkpoint_every=80,
)  # fmt: skip
STYLE_PROMPTS = (
    "a panda emoji on a blue background", "a rocket emoji on a yellow background",
    "a tulip emoji on a white background", "a burger emoji on a purple background",
)  # fmt: skip
# or its five of a subject.
SUBJECT_RECIPE = LoraSpec(
    rank=8, targets=("attention", "feed-forward", "convolutions"), steps=190, batch_size=5,
    learning_rate=2e-3, checkpoint_every=95,
)  # fmt: skip
SUBJECT_PROMPTS = (
    "a sks horse emoji on a blue background", "a sks horse emoji on a red background",
    "a horse emoji on a blue background", "a panda emoji on a blue background",
)  # fmt: skip

OTHERS = (Elsewhere("SD3", USUAL_OF_SD3), Elsewhere("Flux", USUAL_OF_FLUX))
Title = Annotated[str, Field(description="Names the files and the registered model.")]


@dataclass(frozen=True)
class BaseChoice:
    """The base."""

    base: Annotated[
        str,
        Field(
            description="A folder of Stable Diffusion (1.x, 2.x, XL, 3) or Flux, or a hub id; "
            "empty is the small embedded one."
        ),
    ] = ""


@dataclass(frozen=True)
class Images:
    """Images and their sizes."""

    data_licence: Annotated[str, Field(description="Of the images, for the model card.")] = ""
    resolution: Annotated[
        int, Field(ge=0, le=MOST_SIDE, description="Side in pixels; 0 is the base's own.")
    ] = 0
    buckets: Annotated[
        bool, Field(description="Keep images' shapes: cut to the nearest of sizes of equal area.")
    ] = False
    flip: Annotated[
        bool, Field(description="Mirror half of the images; wrong for letters and faces.")
    ] = False
    crops: Annotated[
        int, Field(ge=0, le=1000, description="Random cuts of each image; 0 cuts out the centre.")
    ] = 0


@dataclass(frozen=True)
class Pictures:
    """Pictures and scores."""

    validation_prompts: Annotated[
        list[str] | None,
        Field(description="Drawn by the base and at every kept step; they train nothing."),
        Option("--validation-prompt", repeated=True),
    ] = None
    picture_steps: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_DRAWING_STEPS,
            description="Sampling steps of pictures; empty is 30, embedded base 25.",
        ),
    ] = None
    guidance: Annotated[
        float | None,
        Field(
            ge=0,
            allow_inf_nan=False,
            description="Guidance of pictures; empty is 7.5, SD3 7, Flux 3.5, embedded base 5.",
        ),
    ] = None
    scales: Annotated[
        list[float] | None,
        Field(
            description="Scales of the LoRA to score against the base; 0 alone: none. Empty is "
            "0, 0.5, 1, on the embedded base 0 to 1.25 by 0.25."
        ),
    ] = None
    score_prompts: Annotated[
        list[str] | None,
        Field(description="Further prompts to score: what it was not trained on."),
        Option("--score-prompt", repeated=True),
    ] = None
    validation_data: Annotated[
        str, Field(description="Captioned images that are not trained on, for a validation loss.")
    ] = ""
    clip: Annotated[str, Field(description="CLIP folder or hub id, for CLIP-T and CLIP-I.")] = ""
    dino: Annotated[str, Field(description="DINO or DINOv2 folder or hub id.")] = ""
    image_scores: ImageScores = ()


def _require_base(base: str) -> None:
    """Refuses, without asking a hub, what is neither a folder here nor a name on one."""
    is_id = base.count("/") == 1 and not base.startswith((".", "/", "~"))
    if base and not is_id and not Path(base).is_dir():
        raise ValueError(
            f"there is no folder {base!r}; give a Stable Diffusion or Flux folder or a hub id"
        )


class _Request:
    """What both have: their checks, what is trained, and a line for people."""

    kind: ClassVar[str]
    recipe: ClassVar[LoraSpec]  # on the embedded base
    base: BaseChoice
    data: str
    title: str
    lora: Asked[LoraSpec]
    pictures: Pictures
    machine: LoraExecution

    def __post_init__(self) -> None:
        if not TITLE.fullmatch(self.title):
            raise ValueError(f"title is {self.title!r}; take letters, digits, '.', '_' and '-'")
        _require_base(self.base.base)
        if not self.data and self.base.base:
            raise ValueError("data is empty; give the images for your base")
        if self.data:
            require_data(self.data)
        require_device(self.machine.device)
        self.lora.on(self.usual)
        require_scales(tuple(self.pictures.scales or ()))
        choices_of(self.pictures.image_scores)

    @property
    def spec(self) -> LoraSpec:
        """The LoRA and its training, as far as that is known before the base is opened."""
        return self.lora.on(self.usual)

    @property
    def usual(self) -> LoraSpec:
        """What it is where nothing is asked, on the embedded base or on Stable Diffusion's."""
        return LoraSpec() if self.base.base else self.recipe

    def settled(self) -> Self:
        """Returns the request with the options of another trainer's settings, where the data are
        named by such: what was asked for here goes before them.

        Raises:
            ValueError: If they cannot be read, or one of them cannot be.
        """
        options = settings_of(Path(self.data)).options
        usual = {parameter.name: parameter.default for parameter in parameters(type(self))}
        asked = {n: value for n, value in values(self).items() if value != usual[n]}
        return build(type(self), {**options, **asked}) if options else self

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        asked = self.settled()
        images, base = asked.data or "the embedded images", asked.base.base or "the embedded base"
        return (
            f"lora {asked.kind}: {asked.spec.steps} steps on {images}, {base}; then its scorecard"
        )


@dataclass(frozen=True, kw_only=True)
class StyleRequest(_Request):
    """The style.

    Raises:
        ValueError: For the first parameter that cannot be, as far as that is told without the base.
    """

    kind = "style"
    recipe = STYLE_RECIPE
    base: BaseChoice
    data: Annotated[
        str,
        Field(
            description="Captioned images: a folder with captions, kohya's folders (10_name) or "
            "dataset TOML, ai-toolkit's YAML, a Parquet file or a hub id; empty is the embedded "
            "style."
        ),
    ] = ""
    title: Title = "style"
    images: Images
    lora: Annotated[
        Asked[LoraSpec], Without(("prior_weight",)), *OTHERS,
        Elsewhere("embedded base", STYLE_RECIPE),
    ]  # fmt: skip
    pictures: Pictures
    machine: LoraExecution


@dataclass(frozen=True)
class SubjectChoice:
    """The subject and its class."""

    instance_prompt: Annotated[
        str,
        Field(
            description="Caption of every image, such as 'a photo of sks cat'; empty takes the "
            "captions beside them."
        ),
    ] = ""
    instance_token: Annotated[str, Field(description="Its word for the subject.")] = "sks"
    class_prompt: Annotated[
        str,
        Field(
            description="Of the class, such as 'a photo of a cat'; empty is the captions without "
            "the token."
        ),
    ] = ""
    prior: Annotated[
        bool, Field(description="Prior preservation: also train on the base's own of the class.")
    ] = True
    class_images: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_IMAGES,
            description="How many of these are drawn; empty is 100, embedded base 40.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class SubjectRequest(_Request):
    """The subject's images.

    Raises:
        ValueError: For the first parameter that cannot be, as far as that is told without the base.
    """

    kind = "subject"
    recipe = SUBJECT_RECIPE
    base: BaseChoice
    data: Annotated[
        str,
        Field(
            description="Folder of 3 to 6 images of the subject, kohya's folders or dataset TOML, "
            "or ai-toolkit's YAML; empty is the embedded one."
        ),
    ] = ""
    subject: SubjectChoice
    title: Title = "subject"
    images: Images
    lora: Annotated[Asked[LoraSpec], *OTHERS, Elsewhere("embedded base", SUBJECT_RECIPE)]
    pictures: Pictures
    machine: LoraExecution
