"""What `train_base` was asked for, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddim_core.scorecard_specs import PromptSet
from ddim_core.text2image_specs import BaseSpec, BaseTrainSpec, JudgeSpec


def base_request(asked: Mapping[str, Any]) -> BaseTrainSpec:
    """Checks the parameters of `train_base`; returns how the base is trained.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """
    JudgeSpec(resolution=asked["resolution"], steps=asked["judge_steps"])
    PromptSet(
        role="held-out", prompts=("",), steps=asked["picture_steps"],
        guidance=asked["guidance"], resolution=asked["resolution"], seed=0,
    )  # fmt: skip
    names = ("steps", "resolution", "batch_size", "learning_rate", "seed")
    return base_spec(**{name: asked[name] for name in names})


def base_spec(
    steps: int, resolution: int, batch_size: int, learning_rate: float, seed: int
) -> BaseTrainSpec:
    """Returns how the base is trained; ValueError for what cannot be."""
    return BaseTrainSpec(
        model=BaseSpec(resolution=resolution, seed=seed),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )
