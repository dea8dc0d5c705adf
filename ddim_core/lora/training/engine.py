"""Where the arithmetic of a LoRA training runs: in this process, or in several by accelerate."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ddim_core.lora.specs import Precision

FORMATS = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Engine(Protocol):
    """How a training loop computes, whichever the machine.

    Attributes:
        device: Where tensors go.
        rank: This process among `n_processes`, 0 being the one that saves.
        n_processes: They share each batch; gradients are averaged over them.
        native: The network computes in the format of its own weights, the LoRA's among them (see
            `copies`); else autocast chooses for each operation.
        given: The number format that the network is given its images and texts in.
    """

    device: torch.device
    rank: int
    n_processes: int
    native: bool
    given: torch.dtype

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Scales the loss where the number format needs it; its state is part of a training's."""

    def wrap(self, module: nn.Module) -> Any:
        """Returns the module in the form that forwards go through."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Inside, the forward runs in the training's number format."""

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss."""

    def step(self, optimizer: torch.optim.Optimizer, clip: float) -> Tensor:
        """Limits the gradient's norm (0: no limit), steps, and returns the norm before."""

    def total(self, value: Tensor) -> Tensor:
        """Returns a number's sum over the processes."""


class OneProcess:
    """Plain torch on one device."""

    rank = 0
    n_processes = 1

    def __init__(self, device: str, precision: Precision, native: bool = False) -> None:
        self.device = torch.device(device)
        self.dtype = FORMATS[precision]
        self.native = native
        self.given = self.dtype if native else torch.float32
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def wrap(self, module: nn.Module) -> Any:
        return module

    def autocast(self) -> AbstractContextManager[Any]:
        if self.native or self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, optimizer: torch.optim.Optimizer, clip: float) -> Tensor:
        self.scaler.unscale_(optimizer)
        norm = clipped(_parameters(optimizer), clip)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def total(self, value: Tensor) -> Tensor:
        return value


class Accelerated:
    """Several processes, by accelerate: tried on CPUs (gloo), untested on GPUs."""

    native = False
    given = torch.float32

    def __init__(self, device: str, precision: Precision) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=device.startswith("cpu"), mixed_precision=precision)
        self.device, self.scaler = self.accelerator.device, self.accelerator.scaler
        self.rank = self.accelerator.process_index
        self.n_processes = self.accelerator.num_processes

    def wrap(self, module: nn.Module) -> Any:
        return self.accelerator.prepare_model(module)

    def autocast(self) -> AbstractContextManager[Any]:
        return self.accelerator.autocast()

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer, clip: float) -> Tensor:
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        norm = clipped(_parameters(optimizer), clip)
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()
        return norm

    def total(self, value: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(value, "sum")
        return summed


def clipped(parameters: Sequence[nn.Parameter], clip: float) -> Tensor:
    """Scales gradients down to the norm `clip` where theirs is larger; returns their norm."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if clip:
        torch.nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    return norm


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
