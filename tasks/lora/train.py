"""Latents and embeddings in, a trained LoRA out."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from ddim_core.common.digest import code_digest, digest
from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.training.run import LoraJob, checkpoints, history_of, run, run_apart
from tasks.storage import places, store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class Kept:
    """The weights after so many steps."""

    step: int
    adapter: ArtifactRef


@dataclass(frozen=True)
class Training:
    """What a training gave, and took.

    Attributes:
        adapter: The weights at its end.
        checkpoints: Those that were kept, the end's last.
        losses: By step: loss, learning rate, norm of the gradient, seconds.
        steps, seconds: In all.
        peak_memory_bytes: Of the process.
    """

    adapter: ArtifactRef
    checkpoints: tuple[Kept, ...]
    losses: ArtifactRef
    steps: int
    seconds: float
    peak_memory_bytes: int


@cached_task
def train_lora(
    spec: LoraSpec,
    latents: ArtifactRef,
    captions: list[str],
    class_latents: ArtifactRef | None,
    class_captions: list[str],
    embeddings: ArtifactRef,
    base: dict[str, str],
    location: str,
    execution: LoraExecution,
) -> Training:
    """Trains a LoRA.

    A run that was killed goes on from its last saved state and ends with the same weights. The
    lock lets one process at a time train one LoRA; another waits and finds the work done.
    """
    job = LoraJob(
        spec=spec,
        base=Path(location),
        execution=execution,
        embeddings=store.get_arrays(embeddings),
        latents=store.get_arrays(latents),
        captions=captions,
        class_latents=store.get_arrays(class_latents) if class_latents else None,
        class_captions=tuple(class_captions),
    )
    inputs = [spec, latents, captions, class_latents, class_captions, embeddings, base]
    folder = places.local_dir("work", f"lora-{digest(code_digest(__name__), inputs)[:32]}")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if execution.processes > 1:
            run_apart(job, folder)
        else:
            _run_here(job, folder)
        return _record(spec, folder)


def _run_here(job: LoraJob, folder: Path) -> None:
    with tqdm(total=job.spec.steps, desc="training", unit="step", disable=None) as bar:
        recent: list[float] = []
        for record in run(job, folder):
            recent = [*recent[-49:], record.loss]
            bar.update(record.step - bar.n)
            bar.set_postfix(loss=f"{sum(recent) / len(recent):.4f}")


def _record(spec: LoraSpec, folder: Path) -> Training:
    history = np.array(history_of(folder))
    names = ("loss", "learning_rate", "gradient_norm", "seconds")
    curves = {name: history[:, column].copy() for column, name in enumerate(names)}
    kept = tuple(
        Kept(step, store.put(path.read_bytes(), "adapter"))
        for step, path in checkpoints(folder).items()
    )
    return Training(
        adapter=kept[-1].adapter,
        checkpoints=kept,
        losses=store.put_arrays(curves, "losses"),
        steps=spec.steps,
        seconds=float(curves["seconds"].sum()),
        peak_memory_bytes=_peak_memory(),
    )


def _peak_memory() -> int:
    """Of this process so far: on a GPU of its tensors, else all of it."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
