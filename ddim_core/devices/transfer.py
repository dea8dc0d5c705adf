"""Tensors on their way to a card and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddim_core.common.last import one_ahead

Key = TypeVar("Key")
Made = TypeVar("Made")


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor of the CPU on a device; to CUDA it travels while other work goes on."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def made_ahead(make: Callable[[Key], Made], keys: Iterable[Key]) -> Iterator[Made]:
    """Yields what is made of each key, the next one by a thread while this one is used."""
    with ThreadPoolExecutor(1, "ahead") as pool:
        for future in one_ahead(pool.submit(make, key) for key in keys):
            yield future.result()


def on_cpu(record: Any) -> Any:
    """Returns a record of dicts, lists and tensors with its tensors on the CPU."""
    if isinstance(record, Tensor):
        return record.cpu()
    if isinstance(record, dict):
        return {name: on_cpu(held) for name, held in record.items()}
    if isinstance(record, list):
        return [on_cpu(held) for held in record]
    return record
