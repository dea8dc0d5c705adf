"""The loss of a LoRA training: what the network is shown, what it should say, how errors weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.devices.transfer import sent
from ddim_core.lora.recipes import Recipe, Shown
from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.training.batches import Group, TrainingImages
from ddim_core.lora.training.engine import Engine
from ddim_core.lora.training.noising import Noising

LARGEST_LOG_VARIANCE = (-30.0, 20.0)  # diffusers' limits, against overflow


@dataclass(frozen=True, eq=False)
class Prompts:
    """Embedded prompts, the empty one first.

    Attributes:
        states: [n, tokens, d].
        pooled: [n, d_2]; None of SD 1.x and 2.x.
        ids: int64 [n, tokens] for each CLIP.
        n_t5: How many of the tokens are T5's, the last ones.
    """

    states: Tensor
    pooled: Tensor | None
    ids: list[Tensor]
    n_t5: int = 0

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Prompts:
        """Takes what `embed_prompts` returns."""
        pooled = torch.from_numpy(arrays["pooled"]) if "pooled" in arrays else None
        ids = [torch.from_numpy(arrays[name]) for name in ("ids", "ids_2") if name in arrays]
        n_t5 = int(arrays["n_t5"][0]) if "n_t5" in arrays else 0
        return cls(torch.from_numpy(arrays["states"]), pooled, ids, n_t5)


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss as a function of one group of images.

        sum_i w_i || target_i - f(z_t, t, c_i) ||^2 / d

    z_t, target and w are those of `noising`; d is the number of a latent's values.

    Attributes:
        spec: Noise offset and weighting are taken from it.
        recipe: How the base's texts are encoded and its network is called.
        noising: The base's noise schedule.
        images: Their factors bring latents to about unit variance.
        prompts: The embedded captions.
        network: What denoises, called as its class in diffusers is.
        encoders: CLIP text encoders that are trained; empty: the embedded captions are used.
        engine: Its device and number format.
    """

    spec: LoraSpec
    recipe: Recipe
    noising: Noising
    images: TrainingImages
    prompts: Prompts
    network: Any
    encoders: Sequence[Any]
    engine: Engine

    def __call__(self, group: Group) -> Tensor:
        return self.loss(*self.shown(group))

    def shown(self, group: Group) -> tuple[Tensor, ...]:
        """Returns what `loss` is taken of, on the engine's device: computed on the CPU, where it
        costs next to nothing, so that a thread may do it a step ahead."""
        latents = latents_of(group, self.images)
        noisy, t, target, weights = self.noising.shown(self.spec, latents, group)
        given = (noisy.to(self.engine.given), t, target, weights, group.sizes)
        return tuple(sent(x, self.engine.device) for x in (*given, *self._texts(group)))

    def loss(
        self, noisy: Tensor, t: Tensor, target: Tensor, weights: Tensor, sizes: Tensor,
        *texts: Tensor,
    ) -> Tensor:  # fmt: skip
        """Returns the loss of what `shown` returned.

        Args:
            noisy: z_t, [n, c, h, w].
            t: [n], as the base counts it.
            target: What the network shall answer, like `noisy`.
            weights: w, [n].
            sizes: [n, 6], for SDXL.
            texts: The embedded captions [n, tokens, d], with pooled vectors [n, d_2] but of SD 1.x
                and 2.x; or, where encoders are trained, the token numbers of each, int64
                [n, tokens], and the states of T5, where there is one.
        """
        with self.engine.autocast():
            if self.encoders:
                n = len(self.encoders)
                t5 = texts[n] if len(texts) > n else None
                states, pooled = self.recipe.encode(self.encoders, texts[:n], t5)
            else:
                states, pooled = texts[0], texts[1] if len(texts) > 1 else None
            guidance = self.spec.trained_guidance
            predicted = self.recipe.answer(
                self.network, Shown(noisy, t, states, pooled, sizes, guidance)
            )
        errors = (predicted.float() - target.float()).square().mean(dim=(1, 2, 3))
        return (errors * weights).sum()

    def _texts(self, group: Group) -> list[Tensor]:
        states, given = self.prompts.states[group.prompts], self.engine.given
        if self.encoders:
            t5 = [states[:, -self.prompts.n_t5 :].to(given)] if self.prompts.n_t5 else []
            return [*(ids[group.prompts] for ids in self.prompts.ids), *t5]
        pooled = self.prompts.pooled
        embedded = [states] if pooled is None else [states, pooled[group.prompts]]
        return [x.to(given) for x in embedded]


def latents_of(group: Group, images: TrainingImages) -> Tensor:
    """Returns z = (mean + exp(log variance / 2) n - shift) scaling, [n, c, h, w]."""
    mean, log_variance = group.moments.chunk(2, dim=1)
    std = torch.exp(0.5 * log_variance.clamp(*LARGEST_LOG_VARIANCE))
    return (mean + std * group.latent_noise - images.shift_factor) * images.scaling_factor
