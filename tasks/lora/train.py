"""Latents and embeddings in, a trained LoRA out."""

from __future__ import annotations

import resource
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from tqdm import tqdm

from ddim_core.common.digest import code_digest, digest
from ddim_core.devices.names import CPU, card_kind, kind_of
from ddim_core.devices.reading import BEHIND
from ddim_core.lora.specs import LoraExecution, LoraSpec
from ddim_core.lora.training.loop import LoraStep
from ddim_core.lora.training.run import LoraJob, checkpoints, history_of, run, run_apart
from tasks.machine.device import card
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
    repeats: list[int],
    class_repeats: list[int],
    embeddings: ArtifactRef,
    base: dict[str, str],
    location: str,
    execution: LoraExecution,
) -> Training:
    """Trains a LoRA.

    A run that was killed goes on from its last saved state and ends with the same weights. The
    lock lets one process at a time train one LoRA; another waits and finds the work done. On cards
    one is taken; several processes take as many as they are, the first of the host.

    Args:
        spec: What is trained and how.
        latents, captions: Of the images.
        class_latents, class_captions: Of class images; None and empty without.
        repeats, class_repeats: How often each image is seen beside the others.
        embeddings: Of the distinct captions.
        base: Digests of the base's parts.
        location: The base's folder.
        execution: Device, threads and processes.
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
        repeats=tuple(repeats),
        class_repeats=tuple(class_repeats),
    )
    kind = card_kind(execution.device)
    seen = [repeats, class_repeats]
    inputs = [spec, latents, captions, class_latents, class_captions, seen, embeddings, base, kind]
    folder = places.local_dir("work", f"lora-{digest(code_digest(__name__), inputs)[:32]}")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        if execution.processes > 1:
            run_apart(job, folder)
            return _record(spec, folder, _peak_memory(CPU))
        with card(execution.device) as device:
            _run_here(replace(job, execution=replace(execution, device=device)), folder)
            peak = _peak_memory(device)
        return _record(spec, folder, peak)


def _run_here(job: LoraJob, folder: Path) -> None:
    with tqdm(total=job.spec.steps, desc="training", unit="step", disable=None) as bar:
        recent: list[LoraStep] = []
        for record in run(job, folder):
            recent = [*recent[-(50 + BEHIND) :], record]
            if bar.update(record.step - bar.n):
                known = recent[:-BEHIND] or recent[:1]  # a card may still be computing the others
                bar.set_postfix(loss=f"{sum(r.loss for r in known) / len(known):.4f}")


def _record(spec: LoraSpec, folder: Path, peak_memory_bytes: int) -> Training:
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
        peak_memory_bytes=peak_memory_bytes,
    )


def _peak_memory(device: str) -> int:
    """Of this process so far: on a GPU of its tensors, else all of it."""
    if kind_of(device) == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
