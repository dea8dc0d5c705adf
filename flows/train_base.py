"""Trains the embedded text-to-image base, judges its pictures, and writes it with its card."""

from __future__ import annotations

from typing import Any

from prefect import flow

from ddim_core.lora_base import part_digests
from ddim_core.specs import Execution
from ddim_core.text2image_specs import BaseTrainSpec, JudgeSpec
from flows.base_request import base_spec
from flows.naming import flow_name
from tasks import places
from tasks.base_card import base_prompts, judge_base, write_base_card
from tasks.emoji_judge import train_emoji_judge
from tasks.naming import named
from tasks.scored_pictures import draw_prompts
from tasks.store import check_writable, get_folder
from tasks.train_base import train_text2image


@flow(name="train-base", flow_run_name=flow_name, validate_parameters=True)
def train_base(
    steps: int = BaseTrainSpec.steps,
    resolution: int = 16,
    batch_size: int = BaseTrainSpec.batch_size,
    learning_rate: float = BaseTrainSpec.learning_rate,
    guidance: float = 2.0,
    picture_steps: int = 25,
    judge_steps: int = JudgeSpec.steps,
    output: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Trains the small base on Twemoji scenes; goes on where a killed or a shorter run stopped.

    Args:
        steps: Optimiser steps in all.
        resolution: Height and width in pixels, a multiple of 8.
        batch_size: Pictures per step.
        learning_rate: Largest rate.
        guidance, picture_steps: How the pictures that are judged are drawn.
        judge_steps: Training steps of the judge.
        output: Folder that it is copied to; empty: below DDIM_DATA.
        seed: Keys weights, batches and noise.

    Returns:
        `folder`, `digest`, and what the judge found of pairs that were `seen` and `unseen`.

    Raises:
        ValueError: If the request cannot be.
    """
    check_writable()
    spec = base_spec(steps, resolution, batch_size, learning_rate, seed)
    execution = Execution(batch_size=32)
    trained = train_text2image(spec, execution)
    judge = train_emoji_judge(JudgeSpec(resolution=resolution, steps=judge_steps), execution)
    folder = get_folder(trained)
    asked, drawn, found = {}, {}, {}
    for unseen in (False, True):
        asked[unseen] = base_prompts(unseen, picture_steps, guidance, resolution)
        drawn[unseen] = draw_prompts(
            asked[unseen], part_digests(folder), None, 0.0,
            location=str(folder), execution=execution,
        )  # fmt: skip
        found[unseen] = judge_base(unseen, drawn[unseen], judge)
    place = named(write_base_card, "write base card")(
        trained, spec, asked[True], found[False], found[True], drawn[True],
        {key: judge[key] for key in ("accuracy", "n_test")},
        output or str(places.local_dir("bases", trained["artifact"][:12])),
    )  # fmt: skip
    return {
        "folder": place,
        "digest": trained["artifact"],
        "seen": found[False],
        "unseen": found[True],
    }
