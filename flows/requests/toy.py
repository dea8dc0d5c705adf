"""What the training of a data set's small model can be asked for: its size, steps and images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ddim_core.common.checks import MOST_STEPS
from ddim_core.devices.names import CPU
from ddim_core.diffusion.scheduler_config import FLOW_PREDICTION
from ddim_core.images.load import splits_of
from ddim_core.networks.specs import Objective, TargetSpec, ToyModelSpec, TrainSpec
from flows.requests.flat import Without
from flows.requests.images import DeviceChoice, ImageChoice, Seed
from tasks.machine.device import require_device, settled

TOY_RESOLUTIONS = {"digits": 8, "emoji": 16}  # pixels


@dataclass(frozen=True)
class Toy:
    """The toy model."""

    train_steps: Annotated[
        int, Field(ge=1, le=MOST_STEPS, description="Training steps of the toy model.")
    ] = TrainSpec.steps
    class_conditional: Annotated[
        bool, Field(description="Train the toy model with the data set's labels.")
    ] = False
    objective: Annotated[
        Objective,
        Field(
            description="What the toy model learns to predict: epsilon, v or flow. `epsilon` is "
            "the noise, `v` mixes it with the image, `flow` is the velocity of a rectified flow, "
            "which has no schedule: samplers such as own, flow_heun and unipc draw it, ddim does "
            "not."
        ),
    ] = "epsilon"

    @property
    def predicts(self) -> str:
        """The same by diffusers' name: its scheduler's prediction_type."""
        return {"v": "v_prediction", "flow": FLOW_PREDICTION}.get(self.objective, self.objective)

    @property
    def kind(self) -> str:
        """What follows its data set in its name: nothing of the usual one."""
        of = "" if self.objective == Toy.objective else f"-{self.objective}"
        return ("-conditional" if self.class_conditional else "") + of


@dataclass(frozen=True, kw_only=True)
class ToyRequest:
    """The training.

    Raises:
        ValueError: For the first parameter that cannot be, with its value.
    """

    real: Annotated[ImageChoice, Without(("split",))]
    toy: Toy
    seed: Seed = 0
    device: DeviceChoice = CPU

    def __post_init__(self) -> None:
        require_device(self.device)
        object.__setattr__(self, "device", settled(self.device))
        splits_of(self.real.dataset)
        self.training(1)

    def training(self, channels: int, n_classes: int | None = None) -> TrainSpec:
        """How the model is trained on images of so many channels."""
        real, toy = self.real, self.toy
        return toy_spec(
            real.dataset, real.resolution, channels, toy.train_steps, self.seed, n_classes,
            toy.objective,
        )  # fmt: skip

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        return f"train: the small model of {self.real.dataset}"


def toy_spec(
    dataset: str,
    resolution: int | None,
    channels: int,
    train_steps: int,
    seed: int,
    n_classes: int | None = None,
    objective: Objective = "epsilon",
) -> TrainSpec:
    """Returns how the toy model of a data set is trained.

    Raises:
        ValueError: If no resolution is given where the data set has none of its own.
    """
    model = ToyModelSpec(
        resolution=toy_resolution(dataset, resolution), channels=channels, n_classes=n_classes
    )
    if objective == "epsilon":
        return TrainSpec(model=model, steps=train_steps, seed=seed)
    return TargetSpec(model=model, steps=train_steps, seed=seed, target=objective)


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
