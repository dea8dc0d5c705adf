"""What a format of other people's weights is: what tells it, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddim_core.checkpoints.formats.latents import Latents
from ddim_core.common.foreign import Config
from ddim_core.diffusion.specs import NoiseSpec


@dataclass(frozen=True)
class Network:
    """A network as this project has it.

    Attributes:
        config: Of a diffusers UNet2DModel, or of one of `BACKBONES`.
        state: Its weights by that network's names.
        noise: Its schedule.
        scheduler: The config of a diffusers scheduler that says more of it than `noise` can, such
            as of a flow; None where `noise` says all.
        latents: What makes its decoder's of its latents, where they are more than scaled.
        null_label: The label for "no class" where it is known to be one: the last.
        assumed: Sentences on what nothing said of the network.
        assumed_noise: The same of the schedule; without meaning where a scheduler lies beside it.
    """

    config: Config
    state: dict[str, Tensor]
    noise: NoiseSpec
    scheduler: Config | None = None
    latents: Latents | None = None
    null_label: int | None = None
    assumed: list[str] = field(default_factory=list)
    assumed_noise: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Format:
    """One code's way of writing weights.

    Attributes:
        whose: The code, for messages.
        fits: Tells its weights by their names.
        read: Makes a `Network` of weights, the settings file beside them (or None) and what the
            file itself has beside its weights (or None); raises ValueError where they are of
            another network.
    """

    whose: str
    fits: Callable[[Mapping[str, Tensor]], bool]
    read: Callable[[Mapping[str, Tensor], Any, Any], Network]
