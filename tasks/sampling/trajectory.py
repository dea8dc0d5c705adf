"""How a cell's first images come about: the clean image x0 that its network predicts, call by call.

They are drawn anew by the cell's own sampler, from the cell's own noise, so that no sampling task
has to keep what pages alone show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.devices.names import is_card
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.prediction import x0_and_eps
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.specs import Execution, GridCell, SamplerSpec, SchedulerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.denoisers import network_batch
from ddim_core.networks.joined import side_by_side
from ddim_core.samplers.families import CALLED, family_of, levels_of, settled_own
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import learns_variance, scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.scheduler import departing, scheduler_in
from tasks.machine.device import card
from tasks.sampling.guidance import AskedNetwork
from tasks.storage import store
from tasks.storage.artifact import Trajectories
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

MOST_SHOWN = 8  # network calls of an image
KNOWN = ("vp", "flow", "edm")  # families whose network's answer tells x0

CleanAt = Callable[[Tensor, Tensor, float], Tensor]
Seen = tuple[float, Tensor]  # a timestep, and the x0 predicted there


def why_none(cell: GridCell, own: Mapping[str, Any] | None) -> str:
    """Says why a cell shows no x0; empty where it does.

    Args:
        cell: It.
        own: The checkpoint's scheduler_config.json, with its class; None where it has none.
    """
    if isinstance(cell.sampler, SamplerSpec):
        return ""
    if cell.sampler.pipeline:
        return f"{cell.sampler.pipeline}'s own call draws it, which keeps no x0"
    family = family_of(departing(own, cell))
    return "" if family in KNOWN else f"no x0 is read of {CALLED[family]}"


def require_x0(n: int | None, cells: Sequence[GridCell], own: Mapping[str, Any] | None) -> None:
    """Makes sure, where n trajectories are asked for, that every cell of a checkpoint has some.

    Raises:
        ValueError: If one has none, with why.
    """
    for cell in cells if n else ():
        if reason := why_none(cell, own):
            raise ValueError(f"trajectories is {n}, and {cell.label} has none: {reason}; give 0")


@dataclass(frozen=True)
class SeveralTrajectories:
    """Of several cells, in their order."""

    of: tuple[Trajectories, ...]


def drawn_together(resolution: int, n: int, device: str) -> int:
    """Returns of how many cells n images each are drawn by one task: on a CPU of as many as one
    call of a network of this resolution holds; on a card, which need not fill a call, of one."""
    return 1 if is_card(device) else max(1, network_batch((resolution, resolution)) // n)


@cached_task
def draw_trajectories(
    cells: Sequence[GridCell], checkpoint: ArtifactRef, n: int, execution: Execution
) -> SeveralTrajectories:
    """Draws images 0..n-1 of cells again, side by side, and keeps the x0 predicted on the way.

    On a CPU they are the cells' images to the bit; on a card another size of batch may change the
    last bits.

    Args:
        cells: Of one number format and kind of device.
        checkpoint, n, execution: Theirs, of each, and how.
    """
    torch.set_num_threads(execution.threads)
    (dtype,), (on_card,) = {cell.dtype for cell in cells}, {cell.card for cell in cells}
    with card(execution.device, dtype) as device, torch.inference_mode():
        loaded = checkpoint_in_memory(checkpoint, device, dtype, on_card)

        def seen_by(cell: GridCell, model: Any) -> list[Seen]:
            keys = list(range(n))
            run = _by_ours if isinstance(cell.sampler, SamplerSpec) else _by_scheduler
            noise = ImageNoise(cell.seed, keys, loaded.noise_shape, device)
            network = AskedNetwork(cell, checkpoint, replace(loaded, model=model), device)
            return list(run(cell, checkpoint, network, noise, keys, device))

        every = side_by_side(loaded.model, [partial(seen_by, cell) for cell in cells])
        return SeveralTrajectories(tuple(_stored(loaded, seen, device) for seen in every))


def _stored(loaded: Checkpoint, seen: Sequence[Seen], device: str) -> Trajectories:
    even = np.linspace(0, len(seen) - 1, min(MOST_SHOWN, len(seen)))
    kept = [seen[i] for i in even.round().astype(int)]
    x0 = [to_uint8(loaded.images(x.to(device))) for _, x in kept]
    arrays: dict[str, NDArray[Any]] = {
        "x0": np.stack(x0, axis=1),
        "t": np.array([t for t, _ in kept], np.float64),
    }
    return Trajectories(**vars(store.put_arrays(arrays, "trajectories")), calls=len(seen))


def _by_ours(
    cell: GridCell,
    checkpoint: ArtifactRef,
    network: AskedNetwork,
    noise: ImageNoise,
    keys: list[int],
    device: str,
) -> Iterator[Seen]:
    spec = cell.sampler
    assert isinstance(spec, SamplerSpec)
    for step in sample(network.of_run(keys), network.schedule, spec, noise.x_T(), noise):
        yield float(step.t), step.x0_hat.cpu()


def _by_scheduler(
    cell: GridCell,
    checkpoint: ArtifactRef,
    network: AskedNetwork,
    noise: ImageNoise,
    keys: list[int],
    device: str,
) -> Iterator[Seen]:
    spec = cell.sampler
    assert isinstance(spec, SchedulerSpec)
    own, sampler = scheduler_in(cell, checkpoint), parse_sampler(spec.sampler)
    scheduler = scheduler_for(sampler, own)
    set_steps(scheduler, sampler, spec.steps)
    model = network.of_run(keys, learns_variance(scheduler))
    clean, seen = clean_at(own), list[Seen]()

    def watched(x: Tensor, t: Tensor) -> Tensor:
        said = model(x, t)
        at = float(t.flatten()[0])
        seen.append((at, clean(said[:, : x.shape[1]], x, at).cpu()))
        return said

    draw(watched, scheduler, noise.x_T(), image_streams(cell.seed, keys), spec.eta)
    yield from seen


def clean_at(own: dict[str, object]) -> CleanAt:
    """Returns what reads a network's answer as x0: clean(answer, x, t), each as the network has it.

        diffusion: `x0_and_eps` at alpha_bar = 1 / (1 + sigma^2);  flow: x0 = x - sigma answer
        EDM: x0 = c_skip x / c_in + c_out answer,  c_in = 1 / sqrt(sigma^2 + d^2),
             c_skip = d^2 c_in^2,  c_out = sigma d c_in,  d = sigma_data

    sigma is the noise level at t (`levels_of`). Source: Karras et al. 2022 (arXiv:2206.00364),
    table 1, for the EDM; Lipman et al. 2023 (arXiv:2210.02747) for the flow.

    Args:
        own: The checkpoint's scheduler configuration, of a family in `KNOWN`.

    Raises:
        ValueError: If it is of another family.
    """
    family, level, config = family_of(own), levels_of(own), settled_own(own)
    predicts = config.get("prediction_type", "epsilon")
    if family == "flow":
        return lambda said, x, t: x - level(t) * said
    if family == "edm":
        data = float(config["sigma_data"])
        sign = -1.0 if predicts == "v_prediction" else 1.0

        def of_edm(said: Tensor, x: Tensor, t: float) -> Tensor:
            sigma = level(t)
            c_in = (sigma**2 + data**2) ** -0.5
            return data**2 * c_in * x + sign * sigma * data * c_in * said

        return of_edm
    return lambda said, x, t: x0_and_eps(said, x, 1.0 / (1.0 + level(t) ** 2), predicts)[0]
