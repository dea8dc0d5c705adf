"""Images in, a trained checkpoint out."""

from __future__ import annotations

import logging
import pickle
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from filelock import FileLock
from numpy.typing import NDArray
from prefect import task
from tqdm import tqdm

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.common.digest import code_digest, digest
from ddim_core.devices.names import card_kind
from ddim_core.devices.reading import require_finite
from ddim_core.diffusion.specs import Execution
from ddim_core.networks.specs import TrainSpec
from ddim_core.networks.training import (
    TrainState,
    TrainStep,
    load_state,
    save_state,
    start,
    train,
)
from tasks.machine.device import card
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

STEPS_PER_SAVE = 100

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedCheckpoint(ArtifactRef):
    """A folder of a diffusers pipeline."""

    training_step: int


@cached_task
def train_toy(spec: TrainSpec, images: ArtifactRef, execution: Execution) -> TrainedCheckpoint:
    """Trains a small U-Net; returns a diffusers pipeline folder of its EMA weights.

    A run that was killed goes on from its last saved state and ends with the same weights. The
    lock lets one process at a time train one model; another waits and finds the work done.

    Args:
        spec, images: What is trained, and on what.
        execution: Device and threads.
    """
    torch.set_num_threads(execution.threads)
    work = places.local_dir("work")
    work.mkdir(parents=True, exist_ok=True)
    name = digest(code_digest(__name__), spec, images, card_kind(execution.device))
    state_path = work / f"{name}.pt"
    with FileLock(state_path.with_suffix(".lock")):
        data = store.get_arrays(images)
        with card(execution.device) as device:
            state = _resume(spec, state_path, device)
            _train(spec, data, state, state_path)
    with tempfile.TemporaryDirectory() as folder:
        save_pipeline(Path(folder), state.ema, spec.noise, spec.steps, spec.objective)
        ref = store.put_folder(Path(folder))
    return TrainedCheckpoint(ref.artifact, ref.kind, spec.steps)


def _train(
    spec: TrainSpec, data: Mapping[str, NDArray[Any]], state: TrainState, path: Path
) -> None:
    """Trains to the end; the average is then on the CPU."""
    recent: list[TrainStep] = []
    with tqdm(
        total=spec.steps, initial=state.step, desc="training", unit="step", disable=None
    ) as bar:
        for record in train(spec, data["images"], state, data.get("labels")):
            recent = [*recent[-49:], record]
            bar.update()
            if record.step % STEPS_PER_SAVE == 0 or record.step == spec.steps:
                require_finite(record.step, record.loss)
                _save(spec, state, path)
                bar.set_postfix(loss=f"{sum(r.loss for r in recent) / len(recent):.4f}")
    state.ema.to("cpu")


def _save(spec: TrainSpec, state: TrainState, path: Path) -> None:
    try:
        save_state(spec, state, path)
    except OSError as error:
        raise store.StoreError(f"cannot write {path}: {error.strerror}; free the disk") from error


def _resume(spec: TrainSpec, path: Path, device: str) -> TrainState:
    if path.exists():
        try:
            return load_state(spec, path, device)
        except (ValueError, OSError, pickle.UnpicklingError) as error:
            logger.warning("training starts again; its saved state cannot be used: %s", error)
    return start(spec, device)


@task(name="write-checkpoint")
def write_half(trained: ArtifactRef, output: str) -> str:
    """Copies a checkpoint to a folder, its weights in float16, and returns the folder."""
    source = store.get_folder(trained)
    for path in (path for path in source.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            halves = {name: held.half() for name, held in safetensors.torch.load(content).items()}
            content = safetensors.torch.save(halves, {"format": "pt"})
        store.write_whole(str(Path(output) / path.relative_to(source)), content)
    return output
