"""A trained and exported LoRA, with all that it came from."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.lora.data import CaptionedImages
from tasks.lora.export import Gate
from tasks.lora.train import Training
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class Stage:
    """Pictures of the validation prompts after so many steps; 0 is the base alone."""

    step: int
    pictures: ArtifactRef


@dataclass(frozen=True)
class LoraRecord:
    """A LoRA.

    Attributes:
        title: Names its files and the registered model.
        name: Of its folder: the title, and a digest of weights and base.
        lora, kohya: Stored folders of both layouts; None is not written.
        gate: By layout, how each file was read back.
        training: What trained it.
        validation: Pictures at every kept step.
        validation_prompts: What these show.
        data, class_data: The images it was trained on.
        base, base_name, base_digests: The base's folder, its name for people, and its parts.
    """

    title: str
    name: str
    lora: ArtifactRef
    kohya: ArtifactRef | None
    gate: dict[str, Gate]
    training: Training
    validation: tuple[Stage, ...]
    validation_prompts: list[str]
    data: CaptionedImages
    class_data: CaptionedImages | None
    base: str
    base_name: str
    base_digests: dict[str, str]
