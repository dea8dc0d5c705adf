"""LoRA training: captioned text-to-image and DreamBooth, on SD 1.x, 2.x, XL and the small base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ddim_core.common.late import late
from ddim_core.lora.adapters import attach, trainable
from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.training.batches import (
    DROPOUT_STREAM,
    Draws,
    TrainingImages,
    draws,
    stream_seed,
)
from ddim_core.lora.training.engine import FORMATS, Engine, OneProcess
from ddim_core.lora.training.loss import Objective, Prompts
from ddim_core.networks.building import seeded_weights
from ddim_core.networks.frozen_linear import pack_frozen_linears
from ddim_core.text2image.base_folder import load_noise_scheduler, load_text_encoders, load_unet

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

# What torch says on a CPU, where it has no exception of its own for it.
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


@dataclass(frozen=True)
class LoraStep:
    """What one optimiser step did.

    Attributes:
        step: Steps done so far, this one included; 1 to the spec's `steps`.
        loss: Mean over the step's forwards; 1 for a zero prediction of the noise.
        learning_rate: Used in this step, of the U-Net.
        gradient_norm: Before clipping.
        seconds: Of this step alone, by the wall clock.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    seconds: float


@dataclass
class LoraState:
    """All that a training needs to go on as if it had never stopped.

    Random state and data order are functions of (seed, step) and need no saving.

    Attributes:
        unet, encoders: The networks with the LoRA; encoders are empty unless it has a part there.
        parameters: The LoRA's parameters by name.
        optimizer: With the moving averages of the gradient.
        scheduler: The base's noise schedule.
        engine: Where it runs.
        step: Steps done.
    """

    unet: diffusers.UNet2DConditionModel
    encoders: list[Any]
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    scheduler: diffusers.DDPMScheduler
    engine: Engine
    step: int = 0


def start(
    spec: LoraSpec, base: Path, execution: LoraExecution, engine: Engine | None = None
) -> LoraState:
    """The state before the first step.

    Frozen weights take the spec's number format; the LoRA's stay float32.

    Raises:
        ValueError: If the base cannot be opened or a target module is unknown.
    """
    engine = engine or OneProcess(execution.device, spec.precision)
    scheduler = load_noise_scheduler(base)
    unet = load_unet(base)
    encoders = load_text_encoders(base) if spec.text_encoder else []
    attach(unet, encoders, spec)
    parameters = trainable(unet, encoders)
    for module in (unet, *encoders):
        for parameter in module.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.to(FORMATS[spec.precision])
        module.to(engine.device).train()
        pack_frozen_linears(module)
    if execution.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        for encoder in encoders:
            encoder.gradient_checkpointing_enable()
    return LoraState(unet, encoders, parameters, _optimizer(spec, parameters), scheduler, engine)


def train(
    spec: LoraSpec,
    state: LoraState,
    prompts: Prompts,
    images: TrainingImages,
    class_images: TrainingImages | None = None,
    draw: Draws | None = None,
) -> Iterator[LoraStep]:
    """Trains from `state` to the spec's last step, changing `state` in place before each record.

    The loss is that of `lora_loss.Objective`; with class images it is DreamBooth's, the loss on the
    subject plus prior_weight times the loss on its class.

    Source: diffusers' `train_text_to_image_lora.py` and `train_dreambooth_lora.py`; Ruiz et al.
    2022 (arXiv:2208.12242), eq. 2. Latents are sampled from their moments at each visit. Everything
    random in a step is a function of (seed, step), so a run that stops after any step and is taken
    up from its saved state ends with bit-equal weights on a CPU.

    Args:
        spec: What is trained and how.
        state: From `start`, or from `lora_state.load_state`.
        prompts: The embedded captions, the empty one first.
        images: Captioned images, or those of the subject.
        class_images: Images of the subject's class, for prior preservation.
        draw: The forwards to do; None draws them from the seed.

    Raises:
        ValueError: If the loss is not finite.
        MemoryError: If memory runs out; the message names the settings to lower.
    """
    engine = state.engine
    objective = Objective(
        spec=spec,
        scheduler=state.scheduler,
        scaling_factor=images.scaling_factor,
        prompts=prompts,
        unet=engine.wrap(state.unet),
        encoders=[engine.wrap(encoder) for encoder in state.encoders],
        engine=engine,
    )
    draw = draw or draws(spec, images, class_images, len(state.scheduler.alphas_cumprod))
    factor = rate_factor(spec)
    while state.step < spec.steps:
        began = time.perf_counter()
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak"] * factor(state.step)
        with memory_words(spec):
            loss, norm = _step(spec, state, objective, draw)
        if not math.isfinite(loss):
            raise ValueError(f"the loss is {loss} at step {state.step}; lower the learning_rate")
        rate = state.optimizer.param_groups[0]["lr"]
        yield LoraStep(state.step, loss, rate, norm, time.perf_counter() - began)


def rate_factor(spec: LoraSpec) -> Callable[[int], float]:
    """Returns the learning rate of step 0, 1, ... as a share of its peak: diffusers' schedules."""
    unused = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=spec.learning_rate)
    schedule = diffusers.optimization.get_scheduler(
        spec.schedule,
        unused,
        num_warmup_steps=spec.warmup_steps,
        num_training_steps=spec.steps,
        num_cycles=spec.cycles,
    )
    return schedule.lr_lambdas[0]


@contextmanager
def memory_words(spec: LoraSpec) -> Iterator[None]:
    """Inside, running out of memory is said in words, with the settings to lower.

    Raises:
        MemoryError: In place of torch's own errors.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
            words in str(error) for words in OUT_OF_MEMORY
        ):
            raise
        raise MemoryError(
            f"memory ran out at batch_size {spec.batch_size}; lower batch_size (and raise "
            "accumulation by as much), turn gradient_checkpointing on, or lower resolution or rank"
        ) from error


def _optimizer(spec: LoraSpec, parameters: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    rates = {True: spec.learning_rate, False: spec.text_learning_rate or spec.learning_rate}
    groups = []
    for is_unet, rate in rates.items():
        chosen = [p for name, p in parameters.items() if name.startswith("unet.") == is_unet]
        if chosen:
            groups.append({"params": chosen, "lr": rate, "peak": rate})
    return torch.optim.AdamW(groups, weight_decay=spec.weight_decay, fused=True)


def _step(
    spec: LoraSpec, state: LoraState, objective: Objective, draw: Draws
) -> tuple[float, float]:
    engine = state.engine
    state.optimizer.zero_grad()
    total = torch.zeros((), device=engine.device)
    for index in range(state.step * spec.accumulation, (state.step + 1) * spec.accumulation):
        with _dropout_stream(spec, state, index):
            for group in draw(index):
                loss = objective(group.share(engine.rank, engine.n_processes)) / spec.accumulation
                engine.backward(loss * engine.n_processes)  # which averages over processes
                total += loss.detach()
    norm = engine.step(state.optimizer, spec.gradient_clip)
    state.step += 1
    return engine.total(total), norm


def _dropout_stream(spec: LoraSpec, state: LoraState, index: int) -> AbstractContextManager[None]:
    """Where a forward draws numbers itself (dropout), they too follow from (seed, step)."""
    of_base = [getattr(e.config, "attention_dropout", 0.0) for e in state.encoders]
    if not spec.dropout and not state.unet.config.dropout and not any(of_base):
        return nullcontext()
    return seeded_weights(stream_seed(spec.seed, index, DROPOUT_STREAM))
