"""Training of the small text-to-image base: the v loss, a moving average, exact resumption."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ddim_core.common.late import late
from ddim_core.common.plain_files import read_bytes
from ddim_core.devices.placing import laid_out
from ddim_core.devices.reading import BEHIND, LossWatch, Reading
from ddim_core.devices.transfer import on_cpu, sent
from ddim_core.images.pixels import from_uint8
from ddim_core.text2image.small_base import clip_tokenizer, grown, new_pipeline
from ddim_core.text2image.specs import BaseTrainSpec

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

DIGEST_SIZE = 32


@dataclass(frozen=True)
class BaseStep:
    """What one step did: `step` counts from 1; a card may still be computing its loss."""

    step: int
    reading: Reading
    images_per_second: float

    @property
    def loss(self) -> float:
        """The mean squared error of v."""
        return float(self.reading)


@dataclass
class BaseState:
    """All that training needs to go on exactly: `networks` is trained, `average` is what counts;
    both are on `device`, the CPU or a card."""

    pipeline: diffusers.StableDiffusionPipeline
    networks: nn.ModuleDict
    average: dict[str, Tensor]
    optimizer: torch.optim.AdamW
    step: int
    device: str = "cpu"


def start_base(
    spec: BaseTrainSpec,
    captions: Sequence[Sequence[str]],
    device: str = "cpu",
    trained: Path | None = None,
) -> BaseState:
    """The state before the first step; the vocabulary is learnt from the captions.

    Args:
        spec: What is trained and how.
        captions: Of every image.
        device: The CPU or a card.
        trained: A base whose weights and words it starts from; see `grown`.

    Raises:
        ValueError: If that does not fit.
    """
    if trained is None:
        words = sorted({text for texts in captions for text in texts})
        return _state(spec, new_pipeline(spec.model, words), device)
    return _state(spec, grown(spec.model, trained), device)


def _state(
    spec: BaseTrainSpec, pipeline: diffusers.StableDiffusionPipeline, device: str
) -> BaseState:
    networks = nn.ModuleDict({"unet": pipeline.unet, "text_encoder": pipeline.text_encoder})
    if device != "cpu":
        laid_out(networks.to(device))
    optimizer = torch.optim.AdamW(
        networks.train().parameters(), lr=spec.learning_rate, weight_decay=0.0, fused=True
    )
    average = {name: p.detach().clone() for name, p in networks.named_parameters()}
    return BaseState(pipeline, networks, average, optimizer, step=0, device=device)


def train_base(
    spec: BaseTrainSpec,
    images: NDArray[np.uint8],
    captions: Sequence[Sequence[str]],
    state: BaseState,
) -> Iterator[BaseStep]:
    """Trains from `state` to the spec's last step, changing `state` in place before each record.

        L = E || v - v_theta(alpha_t x + sigma_t eps, t, caption) ||^2,  v = alpha_t eps - sigma_t x

    Source: Salimans and Ho 2022 (arXiv:2202.00512), appendix D. The rows, captions, timesteps and
    noise of a step are functions of (seed, step) alone, so a run taken up from its saved state
    ends with bit-equal weights (at one number of threads). A card is shown the same; there the
    backward of attention may add in another order each time.

    Args:
        spec: What is trained and how.
        images: uint8 [n, resolution, resolution, 3].
        captions: For every image its captions, of which each step draws one.
        state: From `start_base` or `load_base_state`.

    Raises:
        ValueError: If images and captions do not fit, or the loss is not finite.
    """
    shape = (spec.model.resolution, spec.model.resolution, 3)
    if images.shape[1:] != shape or len(images) == 0:
        raise ValueError(f"images have shape {images.shape}; the base needs [n >= 1, *{shape}]")
    if len(captions) != len(images) or not all(captions):
        raise ValueError(f"{len(images)} images have {len(captions)} captions; each needs its own")
    with torch.no_grad():
        scale = state.pipeline.vae.config.scaling_factor
        latents = state.pipeline.vae.encode(from_uint8(images)).latent_dist.mean * scale
    watch = LossWatch(0 if state.device == "cpu" else BEHIND)
    while state.step < spec.steps:
        began = time.perf_counter()
        loss = Reading(_update(spec, state, latents, captions))
        watch.see(state.step, loss, is_last=state.step == spec.steps)
        yield BaseStep(state.step, loss, spec.batch_size / (time.perf_counter() - began))


def learning_rate(spec: BaseTrainSpec, step: int) -> float:
    """The rate of step 0, 1, ...: a linear rise, a constant, then 1 / sqrt(step)."""
    rise = (step + 1) / spec.warmup_steps if step < spec.warmup_steps else 1.0
    return spec.learning_rate * min(rise, math.sqrt(spec.constant_steps / (step + 1)), 1.0)


def averaged(state: BaseState) -> diffusers.StableDiffusionPipeline:
    """Returns the pipeline with the averaged weights in its networks, on the CPU.

    The networks are the state's own: take it when the training is over, or from a loaded state.
    """
    state.networks.load_state_dict(state.average, strict=False)
    state.networks.eval().to("cpu")
    return state.pipeline


def _update(
    spec: BaseTrainSpec, state: BaseState, latents: Tensor, captions: Sequence[Sequence[str]]
) -> Tensor:
    rows, texts, t, eps = _draws(spec, latents, captions, state.step)
    scheduler, tokenizer = state.pipeline.scheduler, state.pipeline.tokenizer
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    x_t = scheduler.add_noise(latents[rows], eps, t)
    v = scheduler.get_velocity(latents[rows], eps, t)
    tokens, x_t, t, v = (sent(drawn, torch.device(state.device)) for drawn in (tokens, x_t, t, v))
    hidden = state.networks["text_encoder"](tokens).last_hidden_state
    predicted = state.networks["unet"](x_t, t, hidden, return_dict=False)[0]
    loss = nn.functional.mse_loss(predicted, v)
    state.optimizer.zero_grad()
    loss.backward()
    parameters: list[Tensor] = list(state.networks.parameters())
    torch.nn.utils.clip_grad_norm_(parameters, spec.gradient_clip)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(spec, state.step)
    state.optimizer.step()
    with torch.no_grad():
        decay = min(spec.ema_decay, (1 + state.step) / (10 + state.step))
        torch._foreach_lerp_(list(state.average.values()), parameters, 1.0 - decay)
    state.step += 1
    return loss.detach()


def _draws(
    spec: BaseTrainSpec, latents: Tensor, captions: Sequence[Sequence[str]], step: int
) -> tuple[Tensor, list[str], Tensor, Tensor]:
    key = np.random.SeedSequence([spec.seed, step]).generate_state(1, np.uint64)[0]
    stream = torch.Generator().manual_seed(int(key >> np.uint64(1)))
    n = spec.batch_size
    rows = torch.randint(0, len(latents), (n,), generator=stream)
    choices, dropped = torch.rand((2, n), generator=stream)
    texts = [
        "" if drop < spec.caption_drop else captions[row][int(choice * len(captions[row]))]
        for row, choice, drop in zip(rows.tolist(), choices.tolist(), dropped.tolist(), strict=True)
    ]
    t = torch.randint(0, 1000, (n,), generator=stream)
    eps = torch.randn((n, *latents.shape[1:]), generator=stream)
    return rows, texts, t, eps


def save_base_state(spec: BaseTrainSpec, state: BaseState, path: Path) -> None:
    """Writes the state to a file, whole or not at all; its tensors are the CPU's."""
    tokens = json.loads(state.pipeline.tokenizer.backend_tokenizer.to_str())["model"]
    record = {
        "spec": spec.but_for_steps,
        "step": state.step,
        "tokens": {name: tokens[name] for name in ("vocab", "merges")},
        "networks": state.networks.state_dict(),
        "average": state.average,
        "optimizer": state.optimizer.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(on_cpu(record), buffer)
    content = buffer.getvalue()
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(hashlib.sha256(content).digest() + content)
    partial.replace(path)


def load_base_state(spec: BaseTrainSpec, path: Path, device: str = "cpu") -> BaseState:
    """Reads a state that `save_base_state` wrote, of this spec or of a shorter run of it, onto a
    device.

    Raises:
        ValueError: If it is damaged, or belongs to another spec.
    """
    data = read_bytes(path)
    if hashlib.sha256(data[DIGEST_SIZE:]).digest() != data[:DIGEST_SIZE]:
        raise ValueError(f"{path.name} is damaged: its bytes do not have their digest")
    record = torch.load(io.BytesIO(data[DIGEST_SIZE:]), weights_only=True)
    if record["spec"] != spec.but_for_steps or record["step"] > spec.steps:
        raise ValueError(f"{path.name} was saved by another run than {spec}")
    tokenizer = clip_tokenizer(**record["tokens"], max_tokens=spec.model.max_tokens)
    state = _state(spec, new_pipeline(spec.model, (), tokenizer), device)
    state.networks.load_state_dict(record["networks"])
    state.average = {name: held.to(device) for name, held in record["average"].items()}
    state.optimizer.load_state_dict(record["optimizer"])
    state.step = record["step"]
    return state
