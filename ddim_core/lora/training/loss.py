"""The loss of a LoRA training: what the network is shown, what it should say, how errors weigh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.devices.transfer import sent
from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.texts import encode
from ddim_core.lora.training.batches import Group
from ddim_core.lora.training.engine import Engine

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

LARGEST_LOG_VARIANCE = (-30.0, 20.0)  # diffusers' limits, against overflow


@dataclass(frozen=True, eq=False)
class Prompts:
    """Embedded prompts, the empty one first; `pooled` and the second `ids` are SDXL's.

    Attributes:
        states: [n, tokens, d].
        pooled: [n, d_2], or None.
        ids: int64 [n, tokens] for each tokenizer.
    """

    states: Tensor
    pooled: Tensor | None
    ids: list[Tensor]

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Prompts:
        """Takes what `embed_prompts` returns."""
        pooled = torch.from_numpy(arrays["pooled"]) if "pooled" in arrays else None
        ids = [torch.from_numpy(arrays[name]) for name in ("ids", "ids_2") if name in arrays]
        return cls(torch.from_numpy(arrays["states"]), pooled, ids)


@dataclass(frozen=True, eq=False)
class Objective:
    """The loss as a function of one group of images.

        sum_i w_i || target_i - f(z_t, t, c_i) ||^2 / d
        z_t = sqrt(alpha_bar_t) z_i + sqrt(1 - alpha_bar_t) eps_i

    The target is eps, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) z, as the base predicts; d
    is the number of a latent's values.

    Attributes:
        spec: Noise offset and min-SNR weighting are taken from it.
        scheduler: The base's noise schedule.
        scaling_factor: Of the latents.
        prompts: The embedded captions.
        unet: The network, called as `UNet2DConditionModel` is.
        encoders: Text encoders that are trained; empty: the embedded captions are used.
        engine: Its device and number format.
    """

    spec: LoraSpec
    scheduler: diffusers.DDPMScheduler
    scaling_factor: float
    prompts: Prompts
    unet: Any
    encoders: Sequence[Any]
    engine: Engine

    def __call__(self, group: Group) -> Tensor:
        return self.loss(*self.shown(group))

    def shown(self, group: Group) -> tuple[Tensor, ...]:
        """Returns what `loss` is taken of, on the engine's device: computed on the CPU, where it
        costs next to nothing, so that a thread may do it a step ahead."""
        latents, t = latents_of(group, self.scaling_factor), group.timesteps
        noise = group.noise + self.spec.noise_offset * group.offset
        noisy = self.scheduler.add_noise(latents, noise, t)
        target = noise
        if self.scheduler.config.prediction_type == "v_prediction":
            target = self.scheduler.get_velocity(latents, noise, t)
        given = (noisy.to(self.engine.given), t, target, self._weights(group), group.sizes)
        return tuple(sent(x, self.engine.device) for x in (*given, *self._texts(group)))

    def loss(
        self, noisy: Tensor, t: Tensor, target: Tensor, weights: Tensor, sizes: Tensor,
        *texts: Tensor,
    ) -> Tensor:  # fmt: skip
        """Returns the loss of what `shown` returned.

        Args:
            noisy: z_t, [n, c, h, w].
            t: int64 [n].
            target: What the network shall answer, like `noisy`.
            weights: w, [n].
            sizes: [n, 6], for SDXL.
            texts: The embedded captions [n, tokens, d], with SDXL's pooled vectors [n, d_2]; or,
                where encoders are trained, the token numbers of each, int64 [n, tokens].
        """
        with self.engine.autocast():
            if self.encoders:
                states, pooled = encode(self.encoders, texts)
            else:
                states, pooled = texts[0], texts[1] if len(texts) > 1 else None
            told = None if pooled is None else {"text_embeds": pooled, "time_ids": sizes}
            predicted = self.unet(noisy, t, states, added_cond_kwargs=told, return_dict=False)[0]
        errors = (predicted.float() - target.float()).square().mean(dim=(1, 2, 3))
        return (errors * weights).sum()

    def _texts(self, group: Group) -> list[Tensor]:
        if self.encoders:
            return [ids[group.prompts] for ids in self.prompts.ids]
        embedded = (self.prompts.states, self.prompts.pooled)
        return [x[group.prompts].to(self.engine.given) for x in embedded if x is not None]

    def _weights(self, group: Group) -> Tensor:
        weights = group.weights
        if self.spec.snr_gamma is None:
            return weights
        alpha_bar = self.scheduler.alphas_cumprod[group.timesteps]
        snr = alpha_bar / (1.0 - alpha_bar)
        capped = snr.clamp(max=self.spec.snr_gamma)
        if self.scheduler.config.prediction_type == "v_prediction":
            return weights * capped / (snr + 1.0)
        return weights * torch.where(snr > 0.0, capped / snr, 1.0)  # the limit at snr = 0 is 1


def latents_of(group: Group, scaling_factor: float) -> Tensor:
    """Returns z = (mean + exp(log variance / 2) n) scaling_factor, [n, c, h, w]."""
    mean, log_variance = group.moments.chunk(2, dim=1)
    std = torch.exp(0.5 * log_variance.clamp(*LARGEST_LOG_VARIANCE))
    return (mean + std * group.latent_noise) * scaling_factor
