"""What the training of the small text-to-image base can be asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import (
    LEAST_SEED_TOO_LARGE,
    MOST_BATCH,
    MOST_DRAWING_STEPS,
    MOST_SIDE,
    MOST_STEPS,
)
from ddim_core.common.plain_files import is_there
from ddim_core.devices.names import CPU
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.safe_files.settings import read_settings
from ddim_core.text2image.specs import BaseSpec, BaseTrainSpec, JudgeSpec
from flows.requests.images import DeviceChoice
from flows.requests.models import require_output
from tasks.machine.device import require_device, settled


@dataclass(frozen=True, kw_only=True)
class BaseRequest:
    """The base.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    steps: Annotated[int, Field(ge=1, le=MOST_STEPS, description="Optimiser steps in all.")] = (
        BaseTrainSpec.steps
    )
    resolution: Annotated[
        int, Field(ge=8, le=MOST_SIDE, description="Height and width in pixels, a multiple of 8.")
    ] = BaseSpec.resolution
    batch_size: Annotated[int, Field(ge=1, le=MOST_BATCH, description="Pictures per step.")] = (
        BaseTrainSpec.batch_size
    )
    learning_rate: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="Largest rate.")
    ] = BaseTrainSpec.learning_rate
    ema_decay: Annotated[
        float, Field(ge=0, lt=1, description="Largest decay of the weights' moving average.")
    ] = BaseTrainSpec.ema_decay
    constant_steps: Annotated[
        int,
        Field(ge=1, le=MOST_STEPS, description="From which the rate falls as 1 / sqrt(step)."),
    ] = BaseTrainSpec.constant_steps
    looks: Annotated[
        bool,
        Field(
            description="Also show it the subjects in five other artists' hands and with lines of "
            "ink, each named by a word, so that subjects keep their shapes under a style LoRA."
        ),
    ] = False
    start: Annotated[
        str,
        Field(
            description="Folder of a base that this command made, whose weights it starts from. "
            "One of half the resolution grows, from 16 pixels on: its pictures are good after a "
            "tenth of the steps."
        ),
    ] = ""
    guidance: Annotated[
        float, Field(ge=0, allow_inf_nan=False, description="Of the pictures that are judged.")
    ] = 2.0
    picture_steps: Annotated[
        int, Field(ge=1, le=MOST_DRAWING_STEPS, description="Their sampling steps.")
    ] = 25
    judge_steps: Annotated[
        int, Field(ge=1, le=MOST_STEPS, description="Training steps of the judge.")
    ] = JudgeSpec.steps
    output: Annotated[
        str, Field(description="Folder that it is copied to; empty: below DDIM_DATA.")
    ] = ""
    seed: Annotated[
        int, Field(ge=0, lt=LEAST_SEED_TOO_LARGE, description="Keys weights, batches and noise.")
    ] = 0

    device: DeviceChoice = CPU

    def __post_init__(self) -> None:
        require_device(self.device)
        object.__setattr__(self, "device", settled(self.device))
        model = self.training().model
        if self.start:
            _require_start(Path(self.start), model)
        JudgeSpec(resolution=self.resolution, steps=self.judge_steps)
        require_output(self.output)
        PromptSet(
            role="held-out", prompts=("",), steps=self.picture_steps, guidance=self.guidance,
            resolution=self.resolution, seed=0,
        )  # fmt: skip

    def training(self) -> BaseTrainSpec:
        """Returns how the base is trained."""
        return BaseTrainSpec(
            model=BaseSpec.of(self.resolution, self.seed),
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            ema_decay=self.ema_decay,
            constant_steps=self.constant_steps,
            looks=self.looks,
            seed=self.seed,
        )

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        return f"train-base: {self.steps} steps at {self.resolution} pixels, then its judge"


def _require_start(start: Path, model: BaseSpec) -> None:
    """Refuses, before anything is opened, a base that the model cannot start from."""
    place = start / "unet" / "config.json"
    if not is_there(place):
        raise ValueError(f"start is {str(start)!r}; it must be a folder that train-base wrote")
    found = read_settings(place)
    side, widths = found.get("sample_size"), found.get("block_out_channels")
    fitting, half = {model.resolution: model.widths}, model.resolution // 2
    if half % 8 == 0 and BaseSpec.of(half).widths == model.widths[1:]:
        fitting[half] = model.widths[1:]
    if side not in fitting or widths != list(fitting[side]):
        raise ValueError(
            f"start is {str(start)!r}, of {side} pixels and widths {widths}; a base of "
            f"{model.resolution} pixels starts from one of "
            + ", or of ".join(f"{side} pixels and widths {list(w)}" for side, w in fitting.items())
            + ("" if half in fitting else f": bases grow from {BaseSpec.resolution} pixels on")
        )
