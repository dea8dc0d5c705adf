"""One LoRA training in a folder: it saves its state, keeps checkpoints, and goes on after a kill.

`python -m ddim_core.lora.training.run FOLDER` is what each of several processes runs.
"""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from ddim_core.common.plain_files import is_there
from ddim_core.devices.reading import require_finite
from ddim_core.lora.adapters import weights_of
from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.texts import distinct_prompts
from ddim_core.lora.training.batches import TrainingImages
from ddim_core.lora.training.engine import Accelerated, Engine
from ddim_core.lora.training.loop import LoraState, LoraStep, start, train
from ddim_core.lora.training.loss import Prompts
from ddim_core.lora.training.state import History, load_state, save_state

SECONDS_PER_SAVE = 10.0
STATE, HISTORY = "state.pt", "history.json"
CHECKPOINT = "checkpoint-{:06d}.safetensors"
PROJECT = Path(__file__).parents[3]
Arrays = dict[str, NDArray[Any]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoraJob:
    """All that a training needs.

    Attributes:
        spec: What is trained and how.
        base: The base's folder.
        execution: Where and by how many.
        embeddings: From `embed_prompts`, of `distinct_prompts` of all captions.
        latents: From `encode_latents`.
        captions: One for each image.
        class_latents, class_captions: The same of class images; None and empty without.
        repeats, class_repeats: How often each image is seen beside the others; empty is once.
    """

    spec: LoraSpec
    base: Path
    execution: LoraExecution
    embeddings: Arrays
    latents: Arrays
    captions: list[str]
    class_latents: Arrays | None = None
    class_captions: tuple[str, ...] = ()
    repeats: tuple[int, ...] = ()
    class_repeats: tuple[int, ...] = ()

    def images(self) -> tuple[TrainingImages, TrainingImages | None]:
        prompts = distinct_prompts([*self.captions, *self.class_captions])
        images = TrainingImages.from_arrays(self.latents, self.captions, prompts, self.repeats)
        if self.class_latents is None:
            return images, None
        return images, TrainingImages.from_arrays(
            self.class_latents, self.class_captions, prompts, self.class_repeats
        )


def run(job: LoraJob, folder: Path, engine: Engine | None = None) -> Iterator[LoraStep]:
    """Trains in a folder, from where it was left there, to the end.

    The folder then holds the weights of every kept checkpoint and of the last step, as
    `checkpoint-<step>.safetensors`, and the state, from which a killed run goes on: its last
    weights are those of an undisturbed run, bit for bit on a CPU.

    Raises:
        ValueError, MemoryError: As `train`.
    """
    spec = job.spec
    torch.set_num_threads(job.execution.threads)
    folder.mkdir(parents=True, exist_ok=True)
    state, history = _resumed(job, folder, engine)
    images, class_images = job.images()
    first = state.engine.rank == 0
    saved_at = time.monotonic()
    told: list[LoraStep] = []  # since the last save: a card may still be computing their losses
    for record in train(spec, state, Prompts.from_arrays(job.embeddings), images, class_images):
        told.append(record)
        is_last = record.step == spec.steps
        is_kept = bool(spec.checkpoint_every) and record.step % spec.checkpoint_every == 0
        saves = is_last or is_kept or time.monotonic() > saved_at + SECONDS_PER_SAVE
        if first and saves:
            require_finite(record.step, record.loss)
        if first and is_kept and not is_last:
            _keep(spec, state, folder)
        if first and saves:
            history += [[r.loss, r.learning_rate, r.gradient_norm, r.seconds] for r in told]
            told.clear()
            save_state(spec, state, history, folder / STATE)
            saved_at = time.monotonic()
        yield record
    if first:
        _keep(spec, state, folder)  # again, for a folder whose state is all that is left
        (folder / HISTORY).write_text(json.dumps(history))


def run_apart(job: LoraJob, folder: Path) -> None:
    """Trains in several processes with accelerate: tried on CPUs, untested on GPUs.

    They are started by torch's own launcher, as `accelerate launch` does for GPUs; that one starts
    a single process on a CPU.

    Raises:
        RuntimeError: If they fail; the message is the end of what they said.
    """
    _write_job(job, folder)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone",
        "--nproc_per_node", str(job.execution.processes),
        "-m", "ddim_core.lora.training.run", str(folder.absolute()),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the training processes failed: {done.stderr.strip()[-800:]}")


def history_of(folder: Path) -> History:
    """Returns the history of a finished training."""
    content = (folder / HISTORY).read_text()
    return [[float(value) for value in row] for row in json.loads(content)]


def checkpoints(folder: Path) -> dict[int, Path]:
    """Returns the kept checkpoints by their step, the oldest first."""
    found = sorted(folder.glob(CHECKPOINT.replace("{:06d}", "*")))
    return {int(path.stem.split("-")[1]): path for path in found}


def _resumed(job: LoraJob, folder: Path, engine: Engine | None) -> tuple[LoraState, History]:
    path = folder / STATE
    state = start(job.spec, job.base, job.execution, engine)
    if not is_there(path):
        return state, []
    try:
        return state, load_state(job.spec, state, path)
    except (ValueError, OSError, pickle.UnpicklingError) as error:
        logger.warning("training starts again; its saved state cannot be used: %s", error)
        return start(job.spec, job.base, job.execution, engine), []


def _keep(spec: LoraSpec, state: LoraState, folder: Path) -> None:
    """Writes the weights as they are now, and deletes the oldest above the limit."""
    path = folder / CHECKPOINT.format(state.step)
    partial = path.with_suffix(".partial")
    save_file(weights_of(state.parameters), partial)
    partial.replace(path)
    older = [p for step, p in checkpoints(folder).items() if step < spec.steps]
    if spec.checkpoint_limit:
        for path in older[: -spec.checkpoint_limit]:
            path.unlink()


def _write_job(job: LoraJob, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"embeddings": job.embeddings, "latents": job.latents}
    if job.class_latents is not None:
        arrays["class_latents"] = job.class_latents
    for name, content in arrays.items():
        whole = {k: np.ascontiguousarray(v) for k, v in content.items()}
        save_arrays(whole, folder / f"{name}.safetensors")
    record = {
        "spec": asdict(job.spec),
        "execution": asdict(job.execution),
        "base": str(job.base.absolute()),
        "captions": job.captions,
        "class_captions": job.class_captions,
        "repeats": job.repeats,
        "class_repeats": job.class_repeats,
    }
    (folder / "job.json").write_text(json.dumps(record))


def _read_job(folder: Path) -> LoraJob:
    record = json.loads((folder / "job.json").read_text())
    spec = record["spec"] | {"targets": tuple(record["spec"]["targets"])}
    classes = folder / "class_latents.safetensors"
    return LoraJob(
        spec=LoraSpec(**spec),
        base=Path(record["base"]),
        execution=LoraExecution(**record["execution"]),
        embeddings=load_arrays(folder / "embeddings.safetensors"),
        latents=load_arrays(folder / "latents.safetensors"),
        captions=record["captions"],
        class_latents=load_arrays(classes) if is_there(classes) else None,
        class_captions=tuple(record["class_captions"]),
        repeats=tuple(record["repeats"]),
        class_repeats=tuple(record["class_repeats"]),
    )


def main() -> None:
    folder = Path(sys.argv[1])
    job = _read_job(folder)
    engine = Accelerated(job.execution.device, job.spec.precision)
    if engine.n_processes != job.execution.processes:
        raise RuntimeError(f"{engine.n_processes} processes run, not {job.execution.processes}")
    for _ in run(job, folder, engine):
        pass
    engine.accelerator.end_training()


if __name__ == "__main__":
    main()
