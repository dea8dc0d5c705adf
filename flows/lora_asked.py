"""What a LoRA flow was asked for, as far as that can be checked without opening its base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from ddim_core.lora_data import locate_data, photo_sources
from ddim_core.lora_specs import LatentSpec, LoraExecution, LoraSpec
from ddim_core.scorecard_specs import require_scales
from tasks.device import require_device

Record = TypeVar("Record", LoraSpec, LatentSpec, LoraExecution)
TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Suits the embedded base and its 152 pictures of 16 pixels.
STYLE_RECIPE: dict[str, Any] = {
    "rank": 8,
    "targets": ["attention", "feed-forward", "convolutions"],
    "steps": 220,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "caption_dropout": 0.1,
    "checkpoint_every": 110,
    "validation_prompts": [
        "a panda emoji on a blue background", "a rocket emoji on a yellow background",
        "a tulip emoji on a white background", "a burger emoji on a purple background",
    ],
}  # fmt: skip
# Suits the embedded base and its five pictures of 16 pixels.
SUBJECT_RECIPE: dict[str, Any] = {
    "rank": 8,
    "targets": ["attention", "feed-forward", "convolutions"],
    "steps": 190,
    "batch_size": 5,
    "learning_rate": 2e-3,
    "checkpoint_every": 95,
    "class_images": 40,
    "validation_prompts": [
        "a sks horse emoji on a blue background", "a sks horse emoji on a red background",
        "a horse emoji on a blue background", "a panda emoji on a blue background",
    ],
}  # fmt: skip

RECIPES = {"style": STYLE_RECIPE, "subject": SUBJECT_RECIPE}


def with_recipe(given: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is given; on the embedded base with the recipe's values for the rest."""
    asked = {name: value for name, value in given.items() if value is not None}
    return asked if given["base"] else dict(recipe) | asked


def require_plain(
    given: Mapping[str, Any], recipe: Mapping[str, Any]
) -> tuple[LoraSpec, LoraExecution]:
    """Checks all parameters that need no look at the base; returns how is trained, and where.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    asked = with_recipe(given, recipe)
    if not TITLE.fullmatch(given["title"]):
        raise ValueError(f"title is {given['title']!r}; take letters, digits, '.', '_' and '-'")
    require_device(given["device"])
    spec, execution = record(LoraSpec, asked), record(LoraExecution, asked)
    if asked["resolution"]:
        record(LatentSpec, asked)
    require_scales(tuple(asked.get("scales", ())))
    if given["data"] and Path(given["data"]).exists():
        photo_sources(locate_data(given["data"]))  # at least one image, by names alone
    if not given["data"] and given["base"]:
        raise ValueError("data is empty; give the images for your base")
    return spec, execution


def record(kind: type[Record], asked: Mapping[str, Any]) -> Record:
    names = [field.name for field in fields(kind)]
    values = {name: asked[name] for name in names if name in asked}
    if "targets" in values:
        values["targets"] = tuple(values["targets"])
    return kind(**values)
