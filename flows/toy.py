"""What the small model of a data set is: its size, its training, the images it learns from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddim_core.emoji import rgb_of
from ddim_core.images import splits_of
from ddim_core.specs import ImageSpec, ToyModelSpec, TrainSpec

TOY_RESOLUTIONS = {"digits": 8, "emoji": 16}  # pixels


def toy_spec(
    dataset: str,
    resolution: int | None,
    channels: int,
    train_steps: int,
    seed: int,
    n_classes: int | None = None,
) -> TrainSpec:
    """Returns how the toy model of a data set is trained.

    Raises:
        ValueError: If no resolution is given where the data set has none of its own.
    """
    model = ToyModelSpec(
        resolution=toy_resolution(dataset, resolution), channels=channels, n_classes=n_classes
    )
    return TrainSpec(model=model, steps=train_steps, seed=seed)


def toy_resolution(dataset: str, resolution: int | None) -> int:
    """Returns the size in pixels that the toy model of a data set is trained at.

    Raises:
        ValueError: If no resolution is given where the data set has none of its own.
    """
    if resolution is None and dataset not in TOY_RESOLUTIONS:
        raise ValueError(
            f"no resolution is given for {dataset!r}; give the size in pixels to train a "
            "small model at (8, 16 or 32)"
        )
    return TOY_RESOLUTIONS[dataset] if resolution is None else resolution


def training_split(dataset: str) -> str:
    """Returns the part of a data set that models are trained on."""
    return "train" if "train" in splits_of(dataset) else "all"


def toy_request(asked: Mapping[str, Any]) -> TrainSpec:
    """Checks the parameters of `train_toy`; returns how it is trained.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    splits_of(asked["dataset"])
    ImageSpec(asked["max_broken"], asked["background"], asked["skin_tones"])
    rgb_of(asked["background"])
    return toy_spec(asked["dataset"], asked["resolution"], 1, asked["train_steps"], asked["seed"])
