"""What a LoRA flow was asked for, settled against its base before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_core.digest import digest
from ddim_core.lora_adapters import require_targets
from ddim_core.lora_base import locate_base, own_resolution, part_digests, size_step
from ddim_core.lora_data import locate_data, photo_sources
from ddim_core.lora_latents import bucket_sizes
from ddim_core.lora_specs import LatentSpec, LoraExecution, LoraSpec, PictureSpec
from flows.lora_asked import record, require_plain, with_recipe
from tasks.embedded import embedded_base

# On the embedded base, which is small and draws at 16 pixels, where nothing else is asked.
EMBEDDED_NAME = "ddim-flows-base"
EMBEDDED_GUIDANCE, GUIDANCE = 2.0, 7.5
EMBEDDED_PICTURE_STEPS, PICTURE_STEPS = 25, 30


@dataclass(frozen=True)
class LoraPlan:
    """A LoRA training with its base, ready to run.

    Attributes:
        title: Names the files and the registered model.
        base: The base's folder.
        base_name: For people: its hub id, or its folder's name.
        digests: Of its parts.
        step: What height and width must be multiples of.
        spec, latents, execution: See there.
        pictures: How validation pictures and class images are drawn.
        validation_prompts: What is drawn at every kept checkpoint.
        data_licence: For the model card.
    """

    title: str
    base: Path
    base_name: str
    digests: dict[str, str]
    step: int
    spec: LoraSpec
    latents: LatentSpec
    execution: LoraExecution
    pictures: PictureSpec
    validation_prompts: list[str]
    data_licence: str

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
        return {k: self.digests[k] for k in ("unet", "scheduler")} | text


def plan(given: Mapping[str, Any], recipe: Mapping[str, Any]) -> LoraPlan:
    """Settles a flow's parameters.

    Args:
        given: The flow's parameters by name; those that are None take the recipe's value on the
            embedded base, and the specs' default on others.
        recipe: What suits the embedded base.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    is_embedded = not given["base"]
    asked = with_recipe(given, recipe)
    spec, execution = require_plain(given, recipe)
    base = embedded_base() if is_embedded else locate_base(given["base"])
    step = size_step(base)
    latents = record(
        LatentSpec, asked | {"resolution": given["resolution"] or own_resolution(base)}
    )
    bucket_sizes(latents, step)
    require_targets(base, spec.targets)
    if given["data"]:
        photo_sources(locate_data(given["data"]))  # at least one image, by names alone
    return LoraPlan(
        title=given["title"],
        base=base,
        base_name=_base_name(given["base"]),
        digests=part_digests(base),
        step=step,
        spec=spec,
        latents=latents,
        execution=execution,
        pictures=PictureSpec(
            steps=asked.get(
                "picture_steps", EMBEDDED_PICTURE_STEPS if is_embedded else PICTURE_STEPS
            ),
            guidance=asked.get("guidance", EMBEDDED_GUIDANCE if is_embedded else GUIDANCE),
            resolution=latents.resolution,
            seed=spec.seed,
        ),
        validation_prompts=list(asked.get("validation_prompts", [])),
        data_licence=given["data_licence"],
    )


def _base_name(given: str) -> str:
    if not given:
        return EMBEDDED_NAME
    return Path(given).resolve().name if Path(given).is_dir() else given


def lora_name(title: str, adapter: str, base: Mapping[str, str]) -> str:
    """Returns the folder name of a LoRA: its title, and a digest of weights and base."""
    return f"{title}-{digest(adapter, dict(base))[:12]}"
