"""What a checkpoint does beyond plain sampling: encode and decode, interpolate, predict x0.

Each image's noise is the grid's own, so what is shown here are the grid's images. The S of a
result stands in its artefact too: two S may take the same steps, and a reference counts by
content alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.checkpoints.conditioning import for_one_run
from ddim_core.common.last import last_of
from ddim_core.devices.names import is_card
from ddim_core.diffusion.interpolation import corner_grid, line
from ddim_core.diffusion.reconstruction import MeanError, mean_error, squared_errors
from ddim_core.diffusion.reconstruction import reconstruct as reconstruct_images
from ddim_core.diffusion.sampling import ImageNoise, SampleStep, plan, sample
from ddim_core.diffusion.specs import Execution, SamplerSpec
from ddim_core.images.pixels import from_uint8, to_uint8
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.machine.device import on_a_card
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

N_SHOWN = 12
BATCH_ON_CARD = 64  # where bits depend on it


@dataclass(frozen=True)
class Reconstruction(ArtifactRef):
    """n real images encoded and decoded with S steps: `errors` float64 [n], and the first images
    `real` and `decoded` as uint8.

    Attributes:
        error: Their mean error with its interval.
        nfe: Network calls an image.
    """

    steps: int
    n: int
    error: MeanError
    nfe: int
    seconds: float


def require_unconditional(n_classes: int | None, is_latent: bool = False) -> None:
    """Makes sure that a checkpoint is told of no classes and draws pixels.

    Raises:
        ValueError: If it does not.
    """
    if is_latent:
        raise ValueError(
            "the checkpoint draws latents; encoding, interpolation and the paper's figures need "
            "one that draws pixels"
        )
    if n_classes is not None:
        raise ValueError(
            f"the checkpoint is conditional on {n_classes} classes; encoding, interpolation and "
            "the paper's figures need an unconditional one"
        )


@cached_task
@on_a_card
def reconstruct(
    sampler: SamplerSpec, checkpoint: ArtifactRef, images: ArtifactRef, n: int, execution: Execution
) -> Reconstruction:
    """Encodes and decodes n real images.

    The n are spread evenly over the set, since folders may lie class by class.
    """
    began = time.perf_counter()
    loaded = _opened(checkpoint, execution)
    pixels = store.get_arrays(images)["images"]
    chosen = pixels[np.linspace(0, len(pixels) - 1, n).round().astype(int)]
    errors, decoded = [], []
    size = _at_once(execution)
    for first in range(0, n, size):
        x_0 = from_uint8(chosen[first : first + size]).to(execution.device)
        with torch.inference_mode():
            x = reconstruct_images(loaded.model, loaded.require_schedule(), sampler, x_0)
        errors.append(squared_errors(x, x_0))
        decoded.append(to_uint8(x))
    each = np.concatenate(errors)
    arrays = {
        "errors": each,
        "steps": np.array([sampler.steps]),
        "real": chosen[:N_SHOWN],
        "decoded": np.concatenate(decoded)[:N_SHOWN],
    }
    return Reconstruction(
        **vars(store.put_arrays(arrays, "reconstruction")),
        steps=sampler.steps,
        n=n,
        error=mean_error(each),
        nfe=2 * len(plan(loaded.require_schedule(), sampler)),
        seconds=time.perf_counter() - began,
    )


@cached_task
@on_a_card
def consistency(
    samplers: list[SamplerSpec], checkpoint: ArtifactRef, seed: int, execution: Execution
) -> ArtifactRef:
    """Decodes the same x_T with several samplers; returns a reference to uint8
    [sampler, image, height, width, channel] and `steps`, the S of each."""
    loaded = _opened(checkpoint, execution)
    x_T = _noise(loaded, seed, N_SHOWN, execution)
    images = [_decoded(loaded, sampler, x_T, execution) for sampler in samplers]
    steps = np.array([sampler.steps for sampler in samplers])
    arrays = {"images": np.stack(images), "steps": steps}
    return store.put_arrays(arrays, "consistency")


@cached_task
@on_a_card
def interpolate(
    sampler: SamplerSpec,
    checkpoint: ArtifactRef,
    seed: int,
    n_lines: int,
    n_points: int,
    execution: Execution,
) -> ArtifactRef:
    """Decodes noise between noise; returns a reference to `line` uint8 [line, point, h, w, c]
    between images 0 and 1, 2 and 3, ..., and `grid` [row, column, h, w, c] between the first 4."""
    loaded = _opened(checkpoint, execution)
    x_T = _noise(loaded, seed, max(2 * n_lines, 4), execution)
    lines = torch.stack([line(x_T[2 * i], x_T[2 * i + 1], n_points) for i in range(n_lines)])
    arrays = {
        name: _decoded(loaded, sampler, x.flatten(0, 1), execution)
        for name, x in (("line", lines), ("grid", corner_grid(x_T[:4], n_points)))
    }
    shaped = {name: x.reshape(-1, n_points, *x.shape[1:]) for name, x in arrays.items()}
    shaped["steps"] = np.array([sampler.steps])
    return store.put_arrays(shaped, "interpolation")


@cached_task
@on_a_card
def x0_sequence(
    sampler: SamplerSpec, checkpoint: ArtifactRef, seed: int, n_shown: int, execution: Execution
) -> ArtifactRef:
    """Keeps the x0 predicted on the way; returns a reference to `x0_hat` uint8
    [step, image, h, w, c] of up to n_shown even steps, both ends among them, and their `t`."""
    loaded = _opened(checkpoint, execution)
    x_T = _noise(loaded, seed, N_SHOWN, execution)
    with torch.inference_mode():
        records = list(_run(loaded, sampler, x_T))
    even = np.linspace(0, len(records) - 1, min(n_shown, len(records)))
    kept = [records[i] for i in even.round().astype(int)]
    arrays = {
        "x0_hat": np.stack([to_uint8(record.x0_hat) for record in kept]),
        "t": np.array([record.t for record in kept]),
        "steps": np.array([sampler.steps]),
    }
    return store.put_arrays(arrays, "x0-sequence")


def _run(loaded: Checkpoint, sampler: SamplerSpec, x_T: Tensor) -> Iterator[SampleStep]:
    schedule = loaded.require_schedule()
    model = for_one_run(loaded, schedule, sampler.prediction_type)
    return sample(model, schedule, sampler, x_T)


def _opened(ref: ArtifactRef, execution: Execution) -> Checkpoint:
    torch.set_num_threads(execution.threads)
    loaded = checkpoint_in_memory(ref, execution.device)
    require_unconditional(loaded.n_classes, loaded.latent is not None)
    loaded.require_schedule()
    return loaded


def _at_once(execution: Execution) -> int:
    """Images of a network call: on a CPU their number changes nothing."""
    return BATCH_ON_CARD if is_card(execution.device) else execution.batch_size


def _noise(loaded: Checkpoint, seed: int, n: int, execution: Execution) -> Tensor:
    shape = (loaded.channels, loaded.resolution, loaded.resolution)
    return ImageNoise(seed, range(n), shape, execution.device).x_T()


def _decoded(
    loaded: Checkpoint, sampler: SamplerSpec, x_T: Tensor, execution: Execution
) -> NDArray[np.uint8]:
    batches = []
    for batch in x_T.split(_at_once(execution)):
        with torch.inference_mode():
            last = last_of(_run(loaded, sampler, batch))
        batches.append(to_uint8(last.x))
    return np.concatenate(batches)
