"""What a LoRA of each kind of base is trained by: diffusers' scripts' settings, texts and calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ddim_core.lora.specs import USUAL_OF_FLUX, USUAL_OF_SD3, LoraSpec
from ddim_core.text2image.families import FLUX, SD, SD3, XL, Family, family_of

OF_BETAS = ("snr_gamma", "noise_offset")
OF_FLOWS = ("weighting", "logit_mean", "logit_std", "mode_scale", "precondition")
OF_FLUX = ("trained_guidance",)
OF_WEIGHTINGS = {
    "logit_mean": "logit_normal", "logit_std": "logit_normal", "mode_scale": "mode",
}  # fmt: skip
# Token numbers of each CLIP [n, tokens], and T5's states [n, tokens, d] where there is one, to the
# states that the network attends to and the pooled vector [n, d].
Encode = Callable[[Sequence[Any], Sequence[Tensor], Tensor | None], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Shown:
    """What a network is asked about.

    Attributes:
        noisy: z_t, [n, c, h, w].
        t: [n], as the base's schedule counts it.
        states: [n, tokens, d].
        pooled: [n, d_2]; None of SD 1.x and 2.x.
        sizes: [n, 6], what SDXL is told of the cut.
        guidance: What Flux is told.
    """

    noisy: Tensor
    t: Tensor
    states: Tensor
    pooled: Tensor | None
    sizes: Tensor
    guidance: float


@dataclass(frozen=True)
class Recipe:
    """How a LoRA of one kind of base is trained.

    Attributes:
        usual: The settings that diffusers' script of it has.
        without: Settings that say nothing here, and are refused.
        encode: Texts to what the network is told of them.
        answer: The network's own call.
        bilinear: Images are resized so, as its script does; else by Lanczos.
    """

    usual: LoraSpec
    without: tuple[str, ...]
    encode: Encode
    answer: Callable[[Any, Shown], Tensor]
    bilinear: bool = False

    def require(self, spec: LoraSpec, base: str) -> None:
        """Makes sure that nothing is asked for that does not belong to this kind of base.

        Raises:
            ValueError: For the first setting that does not, with its value.
        """
        plain = LoraSpec()
        for name in self.without:
            if (value := getattr(spec, name)) != getattr(plain, name):
                raise ValueError(
                    f"{name} is {value}, and no part of how a {base} is trained; leave it out"
                )
        for name, weighting in OF_WEIGHTINGS.items():
            value = getattr(spec, name)
            if value != getattr(plain, name) and spec.weighting != weighting:
                raise ValueError(
                    f"{name} is {value}, and weighting is {spec.weighting}; {name} belongs to the "
                    f"weighting {weighting}"
                )


def recipe_of(folder: Path) -> Recipe:
    """Returns the recipe of a base's folder."""
    return RECIPES[family_of(folder).pipeline]


def recipe_of_family(family: Family) -> Recipe:
    """Returns the recipe of a family."""
    return RECIPES[family.pipeline]


def _last_states(
    encoders: Sequence[Any], ids: Sequence[Tensor], t5: Tensor | None
) -> tuple[Tensor, None]:
    """SD 1.x and 2.x: the last layer's states."""
    return encoders[0](ids[0], return_dict=False)[0], None


def _both_states(
    encoders: Sequence[Any], ids: Sequence[Tensor], t5: Tensor | None
) -> tuple[Tensor, Tensor]:
    """SDXL: the states before the last layer of both encoders, side by side, and the second's
    projected vector."""
    outputs = [e(n, output_hidden_states=True) for e, n in zip(encoders, ids, strict=True)]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    return states, outputs[1][0]


def _all_states(
    encoders: Sequence[Any], ids: Sequence[Tensor], t5: Tensor | None
) -> tuple[Tensor, Tensor]:
    """SD3: both CLIPs' states as SDXL's, filled up with zeros to T5's width and followed by T5's;
    and both projected vectors, side by side."""
    assert t5 is not None
    outputs = [e(n, output_hidden_states=True) for e, n in zip(encoders, ids, strict=True)]
    states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
    wide = functional.pad(states, (0, t5.shape[-1] - states.shape[-1]))
    return torch.cat([wide, t5], dim=1), torch.cat([output[0] for output in outputs], dim=-1)


def _t5_states(
    encoders: Sequence[Any], ids: Sequence[Tensor], t5: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Flux: T5's states, and CLIP's pooled vector."""
    assert t5 is not None
    return t5, encoders[0](ids[0]).pooler_output


def _by_unet(network: Any, shown: Shown) -> Tensor:
    pooled, sizes = shown.pooled, shown.sizes
    told = None if pooled is None else {"text_embeds": pooled, "time_ids": sizes}
    answer: Tensor = network(
        shown.noisy, shown.t, shown.states, added_cond_kwargs=told, return_dict=False
    )[0]
    return answer


def _by_sd3(network: Any, shown: Shown) -> Tensor:
    answer: Tensor = network(
        hidden_states=shown.noisy, timestep=shown.t, encoder_hidden_states=shown.states,
        pooled_projections=shown.pooled, return_dict=False,
    )[0]  # fmt: skip
    return answer


def _by_flux(network: Any, shown: Shown) -> Tensor:
    """Each 2 x 2 latents are one place of a sequence; texts have the place (0, 0, 0)."""
    noisy, states = shown.noisy, shown.states
    n, channels, height, width = noisy.shape
    place = torch.ones_like(noisy[0, 0, ::2, ::2])
    rows, columns = place.cumsum(0) - 1, place.cumsum(1) - 1
    places = torch.stack([torch.zeros_like(place), rows, columns], dim=-1).reshape(-1, 3)
    cells = noisy.reshape(n, channels, height // 2, 2, width // 2, 2)
    is_told = getattr(network, "module", network).config.guidance_embeds  # of one of several, too
    answer: Tensor = network(
        hidden_states=cells.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, 4 * channels),
        timestep=shown.t / 1000,  # which the network multiplies by
        guidance=noisy.new_full((n,), shown.guidance) if is_told else None,
        pooled_projections=shown.pooled,
        encoder_hidden_states=states,
        txt_ids=noisy.new_zeros(states.shape[1], 3),
        img_ids=places,
        return_dict=False,
    )[0]
    unpacked = answer.reshape(n, height // 2, width // 2, channels, 2, 2)
    return unpacked.permute(0, 3, 1, 4, 2, 5).reshape(n, channels, height, width)


RECIPES = {
    SD.pipeline: Recipe(LoraSpec(), (*OF_FLOWS, *OF_FLUX), _last_states, _by_unet),
    XL.pipeline: Recipe(LoraSpec(), (*OF_FLOWS, *OF_FLUX), _both_states, _by_unet),
    SD3.pipeline: Recipe(
        USUAL_OF_SD3,
        (*OF_BETAS, *OF_FLUX),
        _all_states,
        _by_sd3,
        bilinear=True,
    ),
    FLUX.pipeline: Recipe(
        USUAL_OF_FLUX,
        OF_BETAS,
        _t5_states,
        _by_flux,
        bilinear=True,
    ),
}
