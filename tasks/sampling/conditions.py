"""What a pipeline's images are drawn for: prompts, encoded once for all cells, or classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
from prefect.futures import PrefectFuture
from safetensors import SafetensorError
from torch import Tensor

from ddim_core.common.plain_files import is_there
from ddim_core.devices.names import CPU
from ddim_core.diffusion.labels import asked_labels
from ddim_core.diffusion.specs import Execution, OnCard
from ddim_core.pipelines.fitting import require_conditions
from ddim_core.pipelines.prompts import encode_prompts
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.images.stored_prompts import stored_prompts
from tasks.machine.device import card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

KIND = "conditions"


@cached_task
def encode_conditions(
    checkpoint: ArtifactRef,
    prompts: str,
    loras: tuple[tuple[str, float], ...] = (),
    libraries: tuple[tuple[str, str], ...] = (),
    drawn: OnCard | None = None,
    dtype: str = "float32",
    execution: Execution | None = None,
    n: int | None = None,
) -> ArtifactRef:
    """Encodes a stored list of prompts by a pipeline's own encoders, with the LoRAs over them, once
    for a grid; returns what its call takes in their place, by its names.

    The versions of the libraries whose arithmetic that is count in the key. Cells of a card have
    their prompts encoded by the pipeline that draws them, as it lies there.

    Args:
        checkpoint, prompts, loras, libraries: What encodes what.
        drawn, dtype, execution: How a card draws them; without, a CPU encodes in float32.
        n: How many of the first are wanted; None wants all.
    """
    with card(execution.device if execution else CPU, dtype) as device, torch.inference_mode():
        opened = pipeline_in_memory(checkpoint, device, dtype, loras, drawn)
        encoded = encode_prompts(opened, stored_prompts(prompts), n=n)
    return _stored(encoded)


def conditions_of(
    checkpoint: ArtifactRef,
    prompts: str,
    loras: tuple[tuple[str, float], ...],
    libraries: tuple[tuple[str, str], ...],
    drawn: OnCard | None,
    dtype: str,
    execution: Execution,
    n: int | None = None,
) -> PrefectFuture[ArtifactRef]:
    """Submits `encode_conditions` for cells that are drawn so."""
    told = checkpoint, prompts, loras, libraries
    if drawn is None:
        return encode_conditions.submit(*told, n=n)
    anyhow = replace(drawn, batch=1)  # of images: prompts have a batch of their own
    return encode_conditions.submit(*told, anyhow, dtype, execution, n)


def store_conditions(location: str, checkpoint: ArtifactRef) -> ArtifactRef:
    """Stores what somebody encoded prompts to, for a pipeline without text encoders.

    Args:
        location: A .safetensors file of tensors by the call's parameter names, a row a prompt;
            of names that begin with `negative_`, one row.
        checkpoint: The pipeline.

    Raises:
        ValueError: If it is no such file, or the pipeline takes other tensors.
    """
    path, opened = Path(location), pipeline_in_memory(checkpoint)
    if not is_there(path):
        raise ValueError(f"there is no file of encoded prompts {location!r}")
    try:
        tensors = safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is no whole safetensors file: {error}") from error
    _require_sound(path.name, tensors)
    n = max((len(value) for value in tensors.values() if value.ndim), default=0)
    require_conditions(opened, tensors, 1.0, n)
    return _stored(tensors)


def _require_sound(file: str, tensors: Mapping[str, Tensor]) -> None:
    """Makes sure that what somebody encoded prompts to are numbers, and some.

    Raises:
        ValueError: If not; the file and the tensor are named.
    """
    if not tensors:
        raise ValueError(f"{file} holds no tensors; it must have what the prompts are encoded to")
    for name, value in tensors.items():
        if value.numel() == 0:
            raise ValueError(
                f"{name} in {file} is empty, of shape {tuple(value.shape)}; it must have a row a "
                "prompt, and numbers in it"
            )
        wrong = int((~value.isfinite()).sum())
        if wrong:
            raise ValueError(
                f"{name} in {file} has {wrong} of {value.numel()} values that are not finite; "
                "encode the prompts again"
            )


def conditions_for(
    checkpoint: ArtifactRef, conditions: ArtifactRef | None, indices: Sequence[int]
) -> dict[str, Tensor]:
    """Returns what a pipeline's images of these indices are drawn for, a row an image: image k for
    prompt k mod n, or of class k mod n; nothing where it takes neither."""
    opened = pipeline_in_memory(checkpoint)
    if opened.n_classes is not None:
        return {"class_labels": asked_labels(indices, opened.n_classes)}
    if conditions is None:
        return {}
    stored = safetensors.torch.load(store.get(conditions))
    n = max(len(value) for value in stored.values())
    rows = [index % n for index in indices]
    return {name: value if len(value) == 1 else value[rows] for name, value in stored.items()}


def _stored(tensors: dict[str, Tensor]) -> ArtifactRef:
    whole = {name: value.contiguous().clone() for name, value in tensors.items()}
    return store.put(safetensors.torch.save(whole), KIND)
