"""A spec in, a trained text-to-image base out, and the judge's verdict on it."""

from __future__ import annotations

import logging
import pickle
import tempfile
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from tqdm import tqdm

from ddim_core.common.digest import code_digest, digest
from ddim_core.devices.names import card_kind
from ddim_core.devices.reading import require_finite
from ddim_core.diffusion.specs import Execution
from ddim_core.text2image.scenes import base_scenes, captions, draw_all, look_scenes
from ddim_core.text2image.small_base import save_base
from ddim_core.text2image.specs import BaseTrainSpec
from ddim_core.text2image.training import (
    BaseState,
    averaged,
    load_base_state,
    save_base_state,
    start_base,
    train_base,
)
from tasks.machine.device import card
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

STEPS_PER_SAVE = 100

logger = logging.getLogger(__name__)


@cached_task
def train_text2image(spec: BaseTrainSpec, execution: Execution, location: str = "") -> ArtifactRef:
    """Trains the base on scenes of emoji; returns a StableDiffusionPipeline folder of its averages.

    A run that was killed goes on from its last saved state and ends with the same weights; so
    does a longer run from a shorter one's.

    Args:
        spec: What is trained and how.
        execution: Device and threads.
        location: The folder of the base that it starts from, where `spec.start` names one.
    """
    torch.set_num_threads(execution.threads)
    scenes = look_scenes() if spec.looks else base_scenes()
    images, words = draw_all(scenes, spec.model.resolution), captions(scenes)
    work = places.local_dir("work")
    work.mkdir(parents=True, exist_ok=True)
    resumable = digest(code_digest(__name__), spec.but_for_steps, card_kind(execution.device))
    path = work / f"base-{resumable[:32]}.pt"
    with FileLock(path.with_suffix(".lock")), card(execution.device) as device:
        state = _resume(spec, words, path, device, Path(location) if location else None)
        _train(spec, images, words, state, path)
        trained = averaged(state)
    with tempfile.TemporaryDirectory() as folder:
        save_base(trained, Path(folder), half=True)
        return store.put_folder(Path(folder))


def _train(
    spec: BaseTrainSpec,
    images: NDArray[np.uint8],
    captions: list[list[str]],
    state: BaseState,
    path: Path,
) -> None:
    with tqdm(
        total=spec.steps, initial=state.step, desc="training", unit="step", disable=None
    ) as bar:
        for record in train_base(spec, images, captions, state):
            bar.update()
            if record.step % STEPS_PER_SAVE == 0 or record.step == spec.steps:
                require_finite(record.step, record.loss)
                save_base_state(spec, state, path)
                bar.set_postfix(loss=f"{record.loss:.4f}")


def _resume(
    spec: BaseTrainSpec,
    captions: list[list[str]],
    path: Path,
    device: str,
    trained: Path | None,
) -> BaseState:
    if path.exists():
        try:
            return load_base_state(spec, path, device)
        except (ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
            logger.warning("training starts again; its saved state cannot be used: %s", error)
    return start_base(spec, captions, device, trained)
