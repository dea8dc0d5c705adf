"""LoRA training: captioned text-to-image and DreamBooth, on every kind of base."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from ddim_core.common.late import late
from ddim_core.devices.gradients import Gradients
from ddim_core.devices.out_of_memory import memory_told
from ddim_core.devices.placing import laid_out
from ddim_core.devices.reading import BEHIND, LossWatch, Reading
from ddim_core.devices.transfer import made_ahead
from ddim_core.lora.adapters import attach, trainable
from ddim_core.lora.recipes import Recipe, recipe_of
from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.training.batches import (
    DROPOUT_STREAM,
    Draws,
    TrainingImages,
    draws,
    stream_seed,
)
from ddim_core.lora.training.copies import WorkingCopies
from ddim_core.lora.training.engine import FORMATS, Engine, OneProcess
from ddim_core.lora.training.loss import Objective, Prompts
from ddim_core.lora.training.noising import Noising, noising_of
from ddim_core.networks.building import seeded_weights
from ddim_core.networks.frozen_linear import pack_frozen_linears
from ddim_core.text2image.base_folder import (
    load_network,
    load_noise_scheduler,
    load_text_encoders,
)
from ddim_core.text2image.families import family_of

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

Forward: TypeAlias = list[tuple[Tensor, ...]]  # of each of its groups, what `Objective.loss` takes
# Adds the gradients of such a group's loss, its share of a step's, and returns that.
AddGradients: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class LoraStep:
    """What one optimiser step did.

    Attributes:
        step: Steps done so far, this one included; 1 to the spec's `steps`.
        loss_reading, norm_reading: Of what a card may still be computing.
        learning_rate: Used in this step, of the network that denoises.
        seconds: Of this step alone, by the wall clock; on a card, which is some steps behind, right
            in the sum.
    """

    step: int
    loss_reading: Reading
    learning_rate: float
    norm_reading: Reading
    seconds: float

    @property
    def loss(self) -> float:
        """Mean over the step's forwards; 1 for a zero prediction of the noise."""
        return float(self.loss_reading)

    @property
    def gradient_norm(self) -> float:
        """Before clipping."""
        return float(self.norm_reading)


@dataclass
class LoraState:
    """All that a training needs to go on as if it had never stopped.

    Random state and data order are functions of (seed, step) and need no saving.

    Attributes:
        network, encoders: The networks with the LoRA; encoders are empty unless it has a part
            there.
        parameters: The LoRA's trained weights by name, float32.
        optimizer: With the moving averages of the gradient.
        recipe: How a LoRA of the base's kind is trained.
        noising: The base's noise schedule.
        engine: Where it runs.
        copies: Of these weights, by which a card computes; None: they are the networks' own.
        step: Steps done.
    """

    network: Any
    encoders: list[Any]
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    recipe: Recipe
    noising: Noising
    engine: Engine
    copies: WorkingCopies | None = None
    step: int = 0


def start(
    spec: LoraSpec, base: Path, execution: LoraExecution, engine: Engine | None = None
) -> LoraState:
    """The state before the first step, the same on each device.

    Frozen weights take the spec's number format; the LoRA's stay float32. On a card the network
    computes in its own format, where autocast is not needed: it is by fp16, whose loss is scaled,
    by DoRA, whose lengths want float32, and by encoders, of which layers may go unused.

    Raises:
        ValueError: If the base cannot be opened, a target module is unknown, or a setting does not
            belong to the base's kind.
    """
    recipe = recipe_of(base)
    recipe.require(spec, family_of(base).pipeline)
    native = execution.device != "cpu" and spec.precision != "fp16"
    native = native and not spec.dora and not spec.text_encoder
    engine = engine or OneProcess(execution.device, spec.precision, native)
    noising = noising_of(load_noise_scheduler(base))
    network = load_network(base)
    encoders = load_text_encoders(base) if spec.text_encoder else []
    attach(network, encoders, spec)
    parameters = trainable(network, encoders)
    copies = WorkingCopies(parameters, engine.device) if engine.native else None
    if copies is not None:
        parameters = copies.trained
    if execution.device != "cpu":
        laid_out(network)
    for module in (network, *encoders):
        for parameter in module.parameters():
            if copies is not None or not parameter.requires_grad:
                parameter.data = parameter.data.to(FORMATS[spec.precision])
        module.to(engine.device).train()
        pack_frozen_linears(module)
    if execution.gradient_checkpointing:
        network.enable_gradient_checkpointing()
        for encoder in encoders:
            encoder.gradient_checkpointing_enable()
    optimizer = _optimizer(spec, parameters)
    return LoraState(network, encoders, parameters, optimizer, recipe, noising, engine, copies)


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

    Source: diffusers' `train_text_to_image_lora.py` and `train_dreambooth_lora.py`, and those of
    SDXL, SD3 and Flux; Ruiz et al. 2022 (arXiv:2208.12242), eq. 2. Latents are sampled from their
    moments at each visit. Everything random in a step is a function of (seed, step), so a run that
    stops after any step and is taken up from its saved state ends with bit-equal weights on a CPU.
    On a card the next forward's input is made while one is computed, and the losses are looked at
    some steps later; the backward of attention adds there in no fixed order, so that weights repeat
    up to its rounding.

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
        recipe=state.recipe,
        noising=state.noising,
        images=images,
        prompts=prompts,
        network=engine.wrap(state.network),
        encoders=[engine.wrap(encoder) for encoder in state.encoders],
        engine=engine,
    )
    draw = draw or draws(spec, images, class_images, state.noising.n_train)
    factor = rate_factor(spec)
    on_card = engine.device != torch.device("cpu")
    forwards = _forwards(spec, state, objective, draw, on_card)
    add_gradients = _adding(spec, state, objective)
    watch = LossWatch(BEHIND if on_card else 0)
    while state.step < spec.steps:
        began = time.perf_counter()
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak"] * factor(state.step)
        with memory_words(spec):
            loss, norm = map(Reading, _step(spec, state, forwards, add_gradients))
            watch.see(state.step, loss, is_last=state.step == spec.steps)
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


def memory_words(spec: LoraSpec) -> AbstractContextManager[None]:
    """Inside, running out of memory is a MemoryError that says which settings to lower."""
    return memory_told(
        f"memory ran out at batch_size {spec.batch_size}; lower batch_size (and raise accumulation "
        "by as much), turn gradient_checkpointing on, or lower resolution or rank"
    )


def _optimizer(spec: LoraSpec, parameters: dict[str, nn.Parameter]) -> torch.optim.AdamW:
    rates = {False: spec.learning_rate, True: spec.text_learning_rate or spec.learning_rate}
    groups = []
    for is_text, rate in rates.items():
        chosen = [p for name, p in parameters.items() if name.startswith("text_") == is_text]
        if chosen:
            groups.append({"params": chosen, "lr": rate, "peak": rate})
    return torch.optim.AdamW(groups, weight_decay=spec.weight_decay, fused=True)


def _forwards(
    spec: LoraSpec, state: LoraState, objective: Objective, draw: Draws, ahead: bool
) -> Iterator[Forward]:
    """What this process is shown in each forward to come; made one ahead where that is asked."""
    rank, n_processes = state.engine.rank, state.engine.n_processes
    indices = range(state.step * spec.accumulation, spec.steps * spec.accumulation)

    def forward(index: int) -> Forward:
        return [objective.shown(group.share(rank, n_processes)) for group in draw(index)]

    return made_ahead(forward, indices) if ahead else map(forward, indices)


def _adding(spec: LoraSpec, state: LoraState, objective: Objective) -> AddGradients:
    engine, copies = state.engine, state.copies

    def loss_of(*shown: Tensor) -> Tensor:
        return objective.loss(*shown) / spec.accumulation

    def by_engine(*shown: Tensor) -> Tensor:
        loss = loss_of(*shown)
        engine.backward(loss * engine.n_processes)  # which averages over processes
        return loss.detach()

    if copies is None:
        return by_engine
    graphs = not _draws_numbers(spec, state) and not state.network.is_gradient_checkpointing
    gradients = Gradients(loss_of, copies.inside, graphs)

    def by_copies(*shown: Tensor) -> Tensor:
        loss, found = gradients(*shown)
        copies.add(found)
        return loss

    return by_copies


def _step(
    spec: LoraSpec, state: LoraState, forwards: Iterator[Forward], add_gradients: AddGradients
) -> tuple[Tensor, Tensor]:
    """Returns the loss, and the gradient's norm."""
    engine = state.engine
    if state.copies is None:
        state.optimizer.zero_grad()
    else:
        state.copies.begin()
    total = torch.zeros((), device=engine.device)
    for index in range(state.step * spec.accumulation, (state.step + 1) * spec.accumulation):
        with _dropout_stream(spec, state, index):
            for shown in next(forwards):
                total += add_gradients(*shown)
    norm = engine.step(state.optimizer, spec.gradient_clip)
    state.step += 1
    return engine.total(total), norm


def _dropout_stream(spec: LoraSpec, state: LoraState, index: int) -> AbstractContextManager[None]:
    """Where a forward draws numbers itself (dropout), they too follow from (seed, step)."""
    if not _draws_numbers(spec, state):
        return nullcontext()
    return seeded_weights(stream_seed(spec.seed, index, DROPOUT_STREAM))


def _draws_numbers(spec: LoraSpec, state: LoraState) -> bool:
    of_base = [getattr(e.config, "attention_dropout", 0.0) for e in state.encoders]
    return bool(spec.dropout or state.network.config.get("dropout") or any(of_base))
