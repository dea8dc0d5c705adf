"""What a format of other people's weights is: what tells it, and what reads it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ddim_core.checkpoints.formats.latents import Latents
from ddim_core.common.foreign import Config
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.safe_files.safe_load import plain_values

MOST_LEVELS = 12


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
        latent_multiplier: Of latents that were normed channel by channel, what they were then
            multiplied by; None where their autoencoder's own factor says all.
        assumed: Sentences on what nothing said of the network.
        assumed_noise: The same of the schedule; without meaning where a scheduler lies beside it.
        looks: The configuration that its weights look like, in words, for a message where they do
            not fit together.
    """

    config: Config
    state: dict[str, Tensor]
    noise: NoiseSpec
    scheduler: Config | None = None
    latents: Latents | None = None
    null_label: int | None = None
    assumed: list[str] = field(default_factory=list)
    assumed_noise: list[str] = field(default_factory=list)
    latent_multiplier: float | None = None
    looks: str = ""


@dataclass(frozen=True)
class Format:
    """One code's way of writing weights.

    Attributes:
        whose: The code, for messages.
        fits: Tells its weights by their names.
        read: Makes a `Network` of weights, the settings file beside them (or None) and what the
            file itself has beside its weights (or None); raises ValueError where they are of
            another network.
        marks: Names of weights by which the network is found behind other people's prefixes, such
            as Lightning's: every network of the format has exactly one weight whose name ends with
            one of them, and what stands before it is a prefix. Give the longer name too where what
            holds the network belongs to it.
        untrained: Names among its weights that an average of its parameters leaves out.
    """

    whose: str
    fits: Callable[[Mapping[str, Tensor]], bool]
    read: Callable[[Mapping[str, Tensor], Any, Any], Network]
    marks: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()


def count(names: Collection[str], pattern: str) -> int:
    """How many blocks weights are of: one more than the largest number that the pattern finds.

    Raises:
        ValueError: If they are more than the weights.
    """
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    n_blocks = max(found, default=-1) + 1
    if n_blocks > len(names):
        raise ValueError(f"{len(names)} weights name {n_blocks} blocks; each block has some")
    return n_blocks


def told_by(*settings: Any) -> Config:
    """The names and values of whole nested settings, the outer ones and the later ones first; of a
    file's own and of those beside it, either of which may be None."""
    found: Config = {}
    for each in settings:
        found |= dict(reversed(list(plain_values(each))))
    return found


def require_size(size: Any, n_levels: int) -> None:
    """Makes sure that a network's levels can halve its images.

    Raises:
        ValueError: If they cannot, or there are absurdly many.
    """
    if not 1 <= n_levels <= MOST_LEVELS:
        raise ValueError(f"the weights are of {n_levels} levels; at most {MOST_LEVELS} may be")
    step = 1 << (n_levels - 1)
    if type(size) is not int or size < 1 or size % step:
        raise ValueError(
            f"image_size is {size!r:.50}, whose {n_levels} levels halve it; it must be a multiple "
            f"of {step}"
        )
