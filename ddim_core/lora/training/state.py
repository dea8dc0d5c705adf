"""A LoRA training on disk: all that is needed to go on exactly, whole or not at all."""

from __future__ import annotations

import hashlib
import io
from dataclasses import asdict
from pathlib import Path

import torch

from ddim_core.common.plain_files import read_bytes
from ddim_core.devices.transfer import on_cpu
from ddim_core.lora.adapters import set_weights, weights_of
from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.training.loop import LoraState

DIGEST_SIZE = 32

# Of each step so far: loss, learning rate, gradient norm, seconds.
History = list[list[float]]


def save_state(spec: LoraSpec, state: LoraState, history: History, path: Path) -> None:
    """Writes weights, optimiser, number of steps and history; its tensors are the CPU's."""
    scaler = state.engine.scaler
    record = {
        "spec": repr(asdict(spec)),
        "step": state.step,
        "weights": weights_of(state.parameters),
        "optimizer": on_cpu(state.optimizer.state_dict()),
        "engine": {} if scaler is None else scaler.state_dict(),
        "history": history,
    }
    buffer = io.BytesIO()
    torch.save(record, buffer)
    content = buffer.getvalue()
    partial = path.with_name(path.name + ".partial")
    # torch does not notice a flipped bit, and other weights would come out.
    partial.write_bytes(hashlib.sha256(content).digest() + content)
    partial.replace(path)


def load_state(spec: LoraSpec, state: LoraState, path: Path) -> History:
    """Puts a saved training into a fresh state and returns its history.

    Nothing but tensors and plain values is unpickled.

    Raises:
        ValueError: If it is damaged, or belongs to another spec.
    """
    data = read_bytes(path)
    if hashlib.sha256(data[DIGEST_SIZE:]).digest() != data[:DIGEST_SIZE]:
        raise ValueError(f"{path.name} is damaged: its bytes do not have their digest")
    record = torch.load(io.BytesIO(data[DIGEST_SIZE:]), weights_only=True, map_location="cpu")
    if record["spec"] != repr(asdict(spec)):
        raise ValueError(f"{path.name} was saved by a run of {record['spec']}, not of {spec}")
    set_weights(state.parameters, record["weights"])
    state.optimizer.load_state_dict(record["optimizer"])
    if state.engine.scaler is not None:
        state.engine.scaler.load_state_dict(record["engine"])
    state.step = record["step"]
    return list(record["history"])
