"""Latents that are scaled and shifted by channel, or whose decoder's pixels begin at 0: folded into
the decoder's own first and last layer, so that it becomes a plain AutoencoderKL of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST, LAST = "post_quant_conv", "decoder.conv_out"


@dataclass(frozen=True)
class Latents:
    """How what a network draws becomes what its decoder takes.

        image = decoder(z scale + shift)

    Attributes:
        decoder: Its name, for people.
        scale, shift: One a channel.
        darkest: The least value of the decoder's pixels, whose greatest is 1: -1 or 0.
    """

    decoder: str
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    darkest: float = -1.0

    def folded(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weights of the decoder that takes z itself, and gives pixels in [-1, 1].

        Args:
            state: Of diffusers' AutoencoderKL, whose `scaling_factor` becomes 1.

        Raises:
            ValueError: If it has no first layer of its latents, or takes another number of them.
        """
        n = len(self.scale)
        weight, bias = (state.get(f"{FIRST}.{name}") for name in ("weight", "bias"))
        if weight is None or bias is None or weight.shape[1] != n:
            found = "no" if weight is None else weight.shape[1]
            raise ValueError(
                f"vae takes {found} channels in its {FIRST}; {self.decoder}, whose latents the "
                f"network draws, takes {n}"
            )
        scale, shift = (torch.tensor(v, dtype=torch.float64) for v in (self.scale, self.shift))
        wide = weight.double()
        stretch = 2.0 / (1.0 - self.darkest)
        last = {name: state[f"{LAST}.{name}"].double() * stretch for name in ("weight", "bias")}
        folded = {
            f"{FIRST}.weight": wide * scale[None, :, None, None],
            f"{FIRST}.bias": bias.double() + wide[:, :, 0, 0] @ shift,
            f"{LAST}.weight": last["weight"],
            f"{LAST}.bias": last["bias"] + (1.0 - stretch),
        }
        return {**state, **{name: value.float() for name, value in folded.items()}}
