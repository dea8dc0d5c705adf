"""A LoRA that was asked for, settled against its base before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ddim_core.common.digest import digest
from ddim_core.image_scores.registry import ImageScoreChoice, choices_of
from ddim_core.lora.adapters import require_targets
from ddim_core.lora.data import has_captions, locate_data, photo_sources, require_one_subject
from ddim_core.lora.latents import bucket_sizes
from ddim_core.lora.recipes import recipe_of_family
from ddim_core.lora.scoring.specs import PromptSet, require_scales
from ddim_core.lora.specs import LatentSpec, LoraExecution, LoraSpec, PictureSpec
from ddim_core.text2image.base_folder import (
    largest_side,
    locate_base,
    own_resolution,
    part_digests,
    size_step,
)
from ddim_core.text2image.embedded import embedded_base, judge_digest
from ddim_core.text2image.families import Family, family_of
from flows.requests.lora import (
    STYLE_PROMPTS,
    SUBJECT_PROMPTS,
    StyleRequest,
    SubjectRequest,
)
from tasks.lora.data import data_place
from tasks.lora.scoring.vision_models import model_folder
from tasks.machine.device import settled
from tasks.text2image.embedded import LICENCES

EMBEDDED_NAME = "ddim-flows-base"

EMBEDDED_CLASS_IMAGES, CLASS_IMAGES = 40, 100  # the latter as diffusers' script
EMBEDDED_GUIDANCE = 5.0
EMBEDDED_PICTURE_STEPS, PICTURE_STEPS = 25, 30
EMBEDDED_SCORED_STEPS = 16  # as good to the judge as 25, and a third cheaper
EMBEDDED_SCALES, SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25), (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class LoraPlan:
    """A LoRA training with its base, ready to run.

    Attributes:
        title: Names the files and the registered model.
        base: The base's folder.
        family: What kind of base it is.
        base_name: For people: its hub id, or its folder's name.
        digests: Of its parts.
        step: What height and width must be multiples of.
        spec, latents, execution: See there.
        pictures: How validation pictures and class images are drawn.
        validation_prompts: What is drawn at every kept checkpoint.
        data_licence: For the model card.
        scales: Of the LoRA, to be scored, 0 first; only it means that nothing is scored.
        scored: Sampling settings of all prompt sets.
        models: Folders of `clip` and `dino`, where they are given.
        image_scores: What judges pictures one by one.
        embedded: The data are the embedded ones.
        judged: The base is the embedded one, whose subjects the judge knows.
        judge: Digest of the judge that comes with it; empty where there is none.
    """

    title: str
    base: Path
    family: Family
    base_name: str
    digests: dict[str, str]
    step: int
    spec: LoraSpec
    latents: LatentSpec
    execution: LoraExecution
    pictures: PictureSpec
    validation_prompts: list[str]
    data_licence: str
    scales: tuple[float, ...]
    scored: PromptSet
    models: dict[str, str]
    image_scores: tuple[ImageScoreChoice, ...]
    embedded: bool
    judged: bool
    judge: str

    @property
    def location(self) -> str:
        return str(self.base)

    @property
    def text_digests(self) -> dict[str, str]:
        """Of the parts that embeddings depend on."""
        return {k: v for k, v in self.digests.items() if k.startswith(("text", "tokenizer"))}

    @property
    def training_digests(self) -> dict[str, str]:
        """Of the parts that training itself runs."""
        text = self.text_digests if self.spec.text_encoder else {}
        return {k: self.digests[k] for k in (self.family.network, "scheduler")} | text

    def name_of(self, adapter: str) -> str:
        """Returns the folder name of a LoRA: its title, and a digest of weights and base."""
        return f"{self.title}-{digest(adapter, self.digests)[:12]}"


def style_plan(asked: StyleRequest) -> LoraPlan:
    """Settles what a style's LoRA was asked to be.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    licence = asked.images.data_licence or ("" if asked.data else LICENCES["openmoji"])
    return _plan(asked, licence, STYLE_PROMPTS)


def subject_plan(asked: SubjectRequest) -> LoraPlan:
    """Settles what a subject's LoRA was asked to be.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    if asked.data and not asked.subject.instance_prompt:
        place = Path(data_place(asked.data))
        require_one_subject(place)
        if not has_captions(place):
            raise ValueError(
                "instance_prompt is empty, and the images have no captions; give one, such as "
                f"'a photo of {asked.subject.instance_token} cat'"
            )
    licence = asked.images.data_licence or ("" if asked.data else LICENCES["twemoji"])
    return _plan(asked, licence, SUBJECT_PROMPTS)


def n_class_images(asked: SubjectRequest) -> int:
    """How many images of the class are drawn."""
    usual = CLASS_IMAGES if asked.base.base else EMBEDDED_CLASS_IMAGES
    return asked.subject.class_images or usual


def _plan(asked: StyleRequest | SubjectRequest, licence: str, prompts: tuple[str, ...]) -> LoraPlan:
    """Settles what both flows share.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    given, is_embedded = asked.base.base, not asked.base.base
    base = embedded_base() if is_embedded else locate_base(given)
    family = family_of(base)
    recipe = recipe_of_family(family)
    spec = asked.lora.on(asked.recipe if is_embedded else recipe.usual)
    recipe.require(spec, family.pipeline)
    step, images, told = size_step(base), asked.images, asked.pictures
    latents = LatentSpec(
        images.resolution or own_resolution(base), images.buckets, images.flip, images.crops,
        spec.seed,
    )  # fmt: skip
    _require_side(max(max(size) for size in bucket_sizes(latents, step)), largest_side(base))
    require_targets(base, spec.targets)
    if asked.data:
        photo_sources(locate_data(asked.data))  # at least one image, by names alone
    usual_steps = EMBEDDED_PICTURE_STEPS if is_embedded else PICTURE_STEPS
    usual_guidance = EMBEDDED_GUIDANCE if is_embedded else family.guidance
    pictures = PictureSpec(
        told.picture_steps or usual_steps,
        usual_guidance if told.guidance is None else told.guidance,
        latents.resolution,
        spec.seed,
    )
    usual_scales = EMBEDDED_SCALES if is_embedded else SCALES
    if told.validation_prompts is not None or not is_embedded:
        prompts = tuple(told.validation_prompts or ())
    return LoraPlan(
        title=asked.title,
        base=base,
        family=family,
        base_name=_base_name(given),
        digests=part_digests(base),
        step=step,
        spec=spec,
        latents=latents,
        execution=replace(asked.machine, device=settled(asked.machine.device)),
        pictures=pictures,
        validation_prompts=list(prompts),
        data_licence=licence,
        scales=require_scales(usual_scales if told.scales is None else tuple(told.scales)),
        scored=PromptSet(
            role="trained",
            prompts=("",),
            steps=EMBEDDED_SCORED_STEPS if is_embedded else pictures.steps,
            guidance=pictures.guidance,
            resolution=pictures.resolution,
            seed=pictures.seed,
        ),
        models={
            name: str(model_folder(name, place))
            for name, place in (("clip", told.clip), ("dino", told.dino))
            if place
        },
        image_scores=choices_of(told.image_scores),
        embedded=not asked.data,
        judged=is_embedded,
        judge=judge_digest() if is_embedded else "",
    )


def _require_side(side: int, largest: int) -> None:
    if side > largest:
        raise ValueError(
            f"resolution asks for pictures of {side} pixels along a side; this base takes at most "
            f"{largest}"
        )


def _base_name(given: str) -> str:
    if not given:
        return EMBEDDED_NAME
    return Path(given).resolve().name if Path(given).is_dir() else given
